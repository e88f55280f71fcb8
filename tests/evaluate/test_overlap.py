from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as codec

from toolkit.data.masks import Crop, crop_area, crop_to_rle, full, intersection
from toolkit.evaluate.overlap import boundary, boundary_pairs, mask_pairs

SIZE = (40, 56)


@st.composite
def crops(draw: st.DrawFn) -> Crop:
    x, y = draw(st.integers(0, SIZE[1] - 1)), draw(st.integers(0, SIZE[0] - 1))
    w, h = draw(st.integers(0, SIZE[1] - x)), draw(st.integers(0, SIZE[0] - y))
    seed = draw(st.integers(0, 1000))
    mask = (np.random.default_rng(seed).random((h, w)) < draw(st.sampled_from([0, 0.4, 1]))).astype(np.uint8)
    return Crop(mask, x, y)


@settings(max_examples=150, deadline=None)
@given(st.lists(crops(), max_size=4), st.lists(crops(), max_size=4), st.integers(0, 15))
def test_overlaps_have_the_bits_of_pycocotools(found: list[Crop], truths: list[Crop], crowds: int) -> None:
    crowd = np.array([bool(crowds >> j & 1) for j in range(len(truths))], np.bool_)
    areas = np.array([crop_area(one) for one in found], np.float64)
    pairs = mask_pairs(found, areas, truths, crowd, np.ones((len(found), len(truths)), np.bool_), least=0.1)
    ours = dict(zip(zip(pairs.found.tolist(), pairs.truth.tolist(), strict=True), pairs.iou.tolist(), strict=True))
    if found and truths:
        rles = [[crop_to_rle(one, SIZE) for one in several] for several in (found, truths)]
        theirs = codec.iou(*rles, crowd.astype(np.uint8))
        assert ours == {(i, j): iou for (i, j), iou in np.ndenumerate(theirs) if iou >= 0.1}
    else:
        assert not ours


@settings(max_examples=100, deadline=None)
@given(crops(), crops())
def test_the_intersection_is_that_of_whole_masks(a: Crop, b: Crop) -> None:
    assert intersection(a, b) == (full(a, SIZE) & full(b, SIZE)).sum()


@pytest.mark.parametrize("width", [1, 2, 5])
@settings(max_examples=50, deadline=None)
@given(crop=crops())
def test_a_boundary_is_what_erosion_takes_away(crop: Crop, width: int) -> None:
    """By Cheng et al.: erosion by a pixel, `width` times, with the picture's edge as outside."""
    mask = cv2.copyMakeBorder(full(crop, SIZE), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    inner = cv2.erode(mask, np.ones((3, 3), np.uint8), iterations=width)[1:-1, 1:-1]
    if crop.mask.size:
        assert np.array_equal(full(boundary(crop, width), SIZE), full(crop, SIZE) - inner)


def test_ragged_edges_cost_the_boundary_more_than_the_mask() -> None:
    disc = cv2.circle(np.zeros((400, 400), np.uint8), (200, 200), 150, (1,), -1)
    ragged = disc.copy()
    for angle in np.linspace(0, 2 * np.pi, 24, endpoint=False):
        place = (int(200 + 150 * np.cos(angle)), int(200 + 150 * np.sin(angle)))
        cv2.circle(ragged, place, 12, (0,), -1)
    found, truth, crowd = [Crop(ragged, 0, 0)], [Crop(disc, 0, 0)], np.zeros(1, np.bool_)
    asked = np.ones((1, 1), np.bool_)
    pairs = mask_pairs(found, np.array([crop_area(found[0])], np.float64), truth, crowd, asked, least=0.5)
    edges = boundary_pairs(pairs, found, truth, crowd, (400, 400))
    assert pairs.iou[0] > 0.9
    assert edges.iou[0] < 0.6
    same = boundary_pairs(pairs, truth, truth, crowd, (400, 400))
    assert same.iou[0] == pairs.iou[0]
