from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from toolkit.data.detections import Detections
from toolkit.data.joining import inside, join
from toolkit.data.masks import Crop, Window, full
from toolkit.data.tiling import windows_of
from toolkit.recipe import Tiling

Mask = NDArray[np.uint8]
SIZE = (150, 210)
TILING = Tiling(size=(64, 64), overlap=0.25)


def rectangle(x1: int, y1: int, x2: int, y2: int, *, size: tuple[int, int] = SIZE) -> Mask:
    mask = np.zeros(size, np.uint8)
    mask[y1:y2, x1:x2] = 1
    return mask


def seen(masks: Sequence[Mask], window: Window, *, scores: Sequence[float], labels: Sequence[int]) -> Detections:
    """What a network finds in a tile that sees every object as it is, best first."""
    x1, y1, x2, y2 = window
    rows = []
    for mask, score, label in zip(masks, scores, labels, strict=True):
        part = mask[y1:y2, x1:x2]
        if part.any():
            x, y, w, h = cv2.boundingRect(part)
            rows.append((score, label, (x, y, x + w, y + h), Crop(part[y : y + h, x : x + w].copy(), x, y)))
    rows.sort(key=lambda row: -row[0])
    return Detections(
        np.array([row[2] for row in rows], np.float32).reshape(-1, 4),
        np.array([row[0] for row in rows], np.float32),
        np.array([row[1] for row in rows], np.int64),
        [row[3] for row in rows],
        (y2 - y1, x2 - x1),
    )


def found(
    masks: Sequence[Mask],
    *,
    tiling: Tiling = TILING,
    labels: Sequence[int] | None = None,
    scores: Sequence[float] | None = None,
) -> Detections:
    """`masks` seen perfectly in every tile and joined."""
    size = (masks[0].shape[0], masks[0].shape[1])
    windows = windows_of(size, tiling)
    labels, scores = labels or [0] * len(masks), scores or np.linspace(0.9, 0.5, len(masks)).tolist()
    return join(
        [seen(masks, window, scores=scores, labels=labels) for window in windows],
        windows,
        size,
        agreement=tiling.join,
    )


def assert_same(result: Detections, masks: Sequence[Mask]) -> None:
    """The same instances, in the order of `masks`, with their pixels and boxes."""
    assert len(result) == len(masks)
    for box, crop, mask in zip(result.boxes, result.masks, masks, strict=True):
        np.testing.assert_array_equal(full(crop, result.size), mask)
        x, y, w, h = cv2.boundingRect(mask)
        assert box.tolist() == [x, y, x + w, y + h]


shapes = st.tuples(
    st.sampled_from(["rectangle", "ellipse", "line"]),
    st.integers(0, SIZE[1] - 1),
    st.integers(0, SIZE[0] - 1),
    st.integers(2, 90),
    st.integers(2, 90),
    st.integers(0, 2),
)


@settings(max_examples=60)
@given(st.lists(shapes, min_size=1, max_size=12), st.integers(32, 160), st.integers(32, 220), st.floats(0.05, 0.7))
def test_what_every_tile_sees_perfectly_comes_back_as_it_is(drawn, height, width, overlap):
    # Later ones lie on earlier ones, so that many touch.
    ids = np.zeros(SIZE, np.uint8)
    for number, (kind, x, y, w, h, _) in enumerate(drawn, 1):
        if kind == "rectangle":
            ids[y : y + h, x : x + w] = number
        elif kind == "ellipse":
            cv2.ellipse(ids, (x, y), (w // 2, h // 2), 20, 0, 360, number, -1)
        else:
            cv2.line(ids, (x, y), (x + 3 * w, y + h), number, 3)
    kept = [number for number in range(1, len(drawn) + 1) if (ids == number).any()]
    masks = [(ids == number).astype(np.uint8) for number in kept]
    tiling = Tiling(size=(height, width), overlap=overlap)
    result = found(masks, tiling=tiling, labels=[drawn[number - 1][-1] for number in kept])
    # One that is in several pieces, none of which two tiles share, cannot be known to be one.
    windows = windows_of(SIZE, tiling)
    if all(connected(mask, windows) for mask in masks):
        assert_same(result, masks)
        assert result.labels.tolist() == [drawn[number - 1][-1] for number in kept]
        np.testing.assert_allclose(result.scores, np.linspace(0.9, 0.5, len(masks)), rtol=1e-6)
    else:
        assert len(result) >= len(masks)
    union = np.any([full(crop, SIZE) for crop in result.masks], axis=0)
    np.testing.assert_array_equal(union, ids > 0)


def connected(mask: Mask, windows: Sequence[Window]) -> bool:
    """Whether the tiles that see an object hang together by what two of them see of it."""
    sees = [window for window in windows if inside(Crop(mask, 0, 0), window).any()]
    reached, todo = set(), sees[:1]
    while todo:
        one = todo.pop()
        reached.add(one)
        for other in sees:
            x1, y1, x2, y2 = max(one[0], other[0]), max(one[1], other[1]), min(one[2], other[2]), min(one[3], other[3])
            if other not in reached and x1 < x2 and y1 < y2 and mask[y1:y2, x1:x2].any():
                todo.append(other)
    return len(reached) == len(sees)


def test_an_object_over_many_tiles_is_one():
    assert len(windows_of(SIZE, TILING)) == 15
    assert_same(found([rectangle(3, 5, 207, 148)]), [rectangle(3, 5, 207, 148)])


def test_objects_of_one_class_that_touch_stay_two():
    masks = [rectangle(0, 40, 100, 90), rectangle(100, 40, 210, 90), rectangle(40, 90, 130, 120)]
    assert_same(found(masks), masks)


def test_an_object_inside_an_overlap_is_found_once():
    mask = rectangle(50, 50, 58, 58)
    windows = windows_of(SIZE, TILING)
    assert sum(inside(Crop(mask, 0, 0), window).sum() == 64 for window in windows) > 1
    assert_same(found([mask]), [mask])


def test_classes_are_not_mixed():
    mask = rectangle(30, 30, 120, 100)
    result = found([mask, mask], labels=[2, 1])
    assert_same(result, [mask, mask])
    assert result.labels.tolist() == [2, 1]


def two_tiles(left: Sequence[tuple[Mask, float]], right: Sequence[tuple[Mask, float]]) -> Detections:
    """Found in two tiles of 100 pixels that share 30, of a picture of 100 x 170."""
    windows: list[Window] = [(0, 0, 100, 100), (70, 0, 170, 100)]
    parts = [
        seen([m for m, _ in rows], window, scores=[s for _, s in rows], labels=[0] * len(rows))
        for rows, window in zip((left, right), windows, strict=True)
    ]
    return join(parts, windows, (100, 170), agreement=0.5)


def wide(x1: int, y1: int, x2: int, y2: int) -> Mask:
    return rectangle(x1, y1, x2, y2, size=(100, 170))


def test_a_u_of_which_a_tile_shows_two_arms_is_one():
    whole = wide(20, 20, 150, 30) | wide(20, 60, 150, 90) | wide(140, 20, 150, 90)
    result = two_tiles([(whole, 0.8)], [(whole, 0.9)])
    assert_same(result, [whole])
    assert result.scores.tolist() == pytest.approx([0.9])


def test_a_sliver_belongs_to_its_object_and_not_to_the_neighbour_that_reaches_over_it():
    # The right tile sees 10 columns of the first object; the left tile's mask of the second reaches over some of them.
    first, second = wide(10, 10, 80, 50), wide(80, 10, 130, 50)
    bleeding = wide(76, 10, 100, 50)
    result = two_tiles([(first, 0.9), (bleeding, 0.8)], [(second, 0.85), (first, 0.6)])
    assert_same(result, [first, second | bleeding])
    # Nor do two become one where only a narrow strip is seen in two ways.
    result = two_tiles([(wide(10, 10, 100, 50), 0.9)], [(wide(98, 10, 150, 50), 0.8)])
    assert len(result) == 2


def test_a_doubled_detection_stays_beside_its_object():
    whole, double = wide(20, 20, 150, 60), wide(20, 22, 100, 60)
    result = two_tiles([(whole, 0.9), (double, 0.1)], [(whole, 0.8)])
    assert_same(result, [whole, double])


def test_what_is_hardly_found_does_not_reach_into_what_is():
    left = [(wide(20, 20, 150, 60), 0.9)]
    right = [(wide(20, 22, 160, 60), 0.8)]
    # They agree better with what the left tile shows than the object itself does, or stand alone.
    faint = [(wide(20, 20, 110, 60), 0.05), (wide(70, 20, 170, 62), 0.3)]
    result = two_tiles(left, right + faint)
    assert len(result) == 3
    assert_same(result.best(1), [wide(20, 20, 100, 60) | wide(70, 22, 160, 60)])
    assert_same(two_tiles(left, faint).best(1), [wide(20, 20, 100, 60)])


def test_of_several_that_agree_the_surest_are_one():
    whole = wide(20, 20, 150, 60)
    result = two_tiles([(whole, 0.9), (wide(20, 21, 150, 60), 0.5)], [(wide(20, 21, 150, 60), 0.5), (whole, 0.9)])
    assert_same(result, [whole, wide(20, 21, 150, 60)])


@pytest.mark.parametrize("tiles", [1, 2])
def test_nothing_found_is_nothing(tiles):
    windows: list[Window] = [(0, 0, 100, 100), (70, 0, 170, 100)][:tiles]
    empty = seen([], windows[0], scores=[], labels=[])
    result = join([empty] * tiles, windows, (100, 170), agreement=0.5)
    assert len(result) == 0
    assert result.boxes.shape == (0, 4)


def test_without_overlap_nothing_is_joined():
    mask = rectangle(30, 30, 120, 100)
    result = found([mask], tiling=Tiling(size=(50, 70), overlap=0))
    assert len(result) > 1


def test_empty_masks_are_kept_as_they_are():
    windows: list[Window] = [(0, 0, 100, 100), (70, 0, 170, 100)]
    nothing = Detections(
        np.array([[5, 5, 9, 9]], np.float32),
        np.array([0.3], np.float32),
        np.array([1]),
        [Crop(np.zeros((0, 0), np.uint8), 0, 0)],
        (100, 100),
    )
    result = join([nothing, nothing], windows, (100, 170), agreement=0.5)
    assert result.boxes.tolist() == [[5, 5, 9, 9], [75, 5, 79, 9]]
    assert [crop.mask.size for crop in result.masks] == [0, 0]
