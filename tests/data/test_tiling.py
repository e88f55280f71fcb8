from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.data.detections import Detections
from toolkit.data.masks import Crop, full
from toolkit.data.preprocess import Prepared, Preprocess
from toolkit.data.tiling import cut, detect_tiled, windows_of
from toolkit.recipe import Tiling

PREPARE = Preprocess([{"type": "Permute"}], origin="test")
sides = st.integers(1, 400)
tiles = st.integers(32, 300)


@given(sides, sides, tiles, tiles, st.floats(0, 0.89))
def test_tiles_cover_the_picture_and_overlap(height, width, tile_height, tile_width, overlap):
    tiling = Tiling(size=(tile_height, tile_width), overlap=overlap)
    windows = windows_of((height, width), tiling)
    h, w = min(height, tile_height), min(width, tile_width)
    assert {(x2 - x1, y2 - y1) for x1, y1, x2, y2 in windows} == {(w, h)}
    assert len(set(windows)) == len(windows)
    assert windows == sorted(windows, key=lambda window: (window[1], window[0]))
    covered = np.zeros((height, width), np.int64)
    for x1, y1, x2, y2 in windows:
        covered[y1:y2, x1:x2] += 1
    assert covered.min() == 1 or len(windows) > 1
    for side, tile, low in ((width, w, 0), (height, h, 1)):
        starts = sorted({window[low] for window in windows})
        assert (starts[0], starts[-1] + tile) == (0, side)
        gaps = np.diff(starts)
        assert (tile - gaps >= overlap * tile - 1e-9).all() or (gaps == 1).all()
        # Evenly, and no more than it takes.
        assert len(gaps) == 0 or gaps.max() - gaps.min() <= 1
        assert len(gaps) in (0, -(-(side - tile) // max(1, int(tile * (1 - overlap)))))


@pytest.mark.parametrize("size", [(640, 640), (1, 1), (640, 2), (333, 639)])
def test_a_picture_not_larger_than_a_tile_is_one(size):
    whole = [(0, 0, size[1], size[0])]
    assert windows_of(size, Tiling(size=(640, 640))) == windows_of(size, None) == whole


class Bright:
    """Finds what is brighter than its ground, each object one detection; its red is its score."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, batch: Sequence[Prepared]) -> list[Detections]:
        self.batches.append(len(batch))
        return [self._find(prepared) for prepared in batch]

    def _find(self, prepared: Prepared) -> Detections:
        red, green = prepared.image[0], prepared.image[1]
        values = sorted(set(np.unique(green).tolist()) - {0.0}, key=lambda value: -red[green == value].max())
        crops = []
        for value in values:
            x, y, w, h = cv2.boundingRect((green == value).astype(np.uint8))
            crops.append(Crop((green[y : y + h, x : x + w] == value).astype(np.uint8), x, y))
        return Detections(
            np.array([crop.extent for crop in crops], np.float32).reshape(-1, 4),
            np.array([red[green == value].max() / 255 for value in values], np.float32),
            np.zeros(len(values), np.int64),
            crops,
            prepared.size,
        )


def picture(height: int, width: int, *boxes: tuple[int, int, int, int]) -> np.ndarray:
    rgb = np.zeros((height, width, 3), np.uint8)
    for number, (x1, y1, x2, y2) in enumerate(boxes, 1):
        rgb[y1:y2, x1:x2] = 250 - number, number, 0
    return rgb


def test_pictures_of_all_sizes_are_seen_in_batches_of_tiles():
    pictures = [
        picture(200, 150, (10, 10, 140, 190), (140, 0, 150, 200)),
        picture(40, 50, (3, 4, 9, 8)),
        picture(64, 64),
        picture(90, 70, (0, 0, 5, 5), (60, 60, 70, 90)),
    ]
    tiling = Tiling(size=(64, 64))
    find = Bright()
    found = list(detect_tiled(find, pictures, PREPARE, tiling, at_once=5))
    tiles = sum(len(windows_of(rgb.shape[:2], tiling)) for rgb in pictures)
    assert find.batches == [5] * (tiles // 5) + [tiles % 5] * (tiles % 5 > 0)
    for rgb, theirs in zip(pictures, found, strict=True):
        assert theirs.size == rgb.shape[:2]
        assert len(theirs) == rgb[..., 1].max()
        for number, (box, crop) in enumerate(zip(theirs.boxes, theirs.masks, strict=True), 1):
            np.testing.assert_array_equal(full(crop, theirs.size), rgb[..., 1] == number)
            x, y, w, h = cv2.boundingRect((rgb[..., 1] == number).astype(np.uint8))
            assert box.tolist() == [x, y, x + w, y + h]
        assert theirs.scores.tolist() == sorted(theirs.scores.tolist(), reverse=True)


def test_without_tiles_pictures_go_as_they_are():
    pictures = [picture(200, 150, (10, 10, 140, 190)), picture(40, 50)]
    find = Bright()
    found = list(detect_tiled(find, pictures, PREPARE, None, at_once=2))
    assert find.batches == [2]
    expected = find([PREPARE(rgb) for rgb in pictures])
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.boxes, other.boxes)
        assert one.boxes.dtype == other.boxes.dtype
        assert [crop.extent for crop in one.masks] == [crop.extent for crop in other.masks]


def test_a_tile_is_a_part_of_the_picture():
    rgb = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    np.testing.assert_array_equal(cut(rgb, (5, 2, 25, 12)), rgb[2:12, 5:25])
    assert cut(rgb, None) is rgb


def test_pictures_are_asked_for_when_their_tiles_are_due():
    asked: list[int] = []

    def pictures():
        for number in range(4):
            asked.append(number)
            yield picture(100, 150)

    found = detect_tiled(Bright(), pictures(), PREPARE, Tiling(size=(64, 64)), at_once=4)
    for number in range(4):
        next(found)
        assert len(asked) <= number + 2
    assert list(found) == []
