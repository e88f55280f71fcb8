from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.data.recipes import plain_recipe
from toolkit.data import tiles as tiles_module
from toolkit.data.coco import Annotation, Picture, Split
from toolkit.data.loader import LEAST_PIXELS, TrainBatches, eval_batches
from toolkit.data.masks import mask_to_polygons, mask_to_rle, segmentation_to_mask
from toolkit.data.tiles import Reader, near_each_other, tiles_of
from toolkit.data.tiling import windows_of
from toolkit.recipe import Recipe, Tiling

TILING = Tiling(size=(64, 64), overlap=0.25, empty=0.5)


def recipe(tiling: Tiling | None = TILING, *, batch_size: int = 4, **data: Any) -> Recipe:
    return plain_recipe(
        data={"input_size": [64, 64], "workers": 0, "interpolation": "nearest", **data},
        train={"batch_size": batch_size},
        tiling=tiling.model_dump() if tiling else None,
    )


def drawn(number: int, path: Path, size: tuple[int, int], *masks: np.ndarray, crowd: tuple[int, ...] = ()) -> Picture:
    """A picture in which object k has the colour (k + 1, 0, 0); every second mask is of polygons."""
    rgb = np.zeros((*size, 3), np.uint8)
    annotations = []
    for k, mask in enumerate(masks):
        rgb[mask > 0] = (20 * (k + 1), 0, 0)
        x, y, w, h = cv2.boundingRect(mask)
        shape = mask_to_polygons(mask) if k % 2 else mask_to_rle(mask)
        annotations.append(Annotation(k, k % 3, (x, y, x + w, y + h), shape, float(mask.sum()), k in crowd))
    cv2.imwrite(str(path), rgb[..., ::-1])
    return Picture(number, path, path.name, *size, annotations)


def box(size: tuple[int, int], x1: int, y1: int, x2: int, y2: int) -> np.ndarray:
    mask = np.zeros(size, np.uint8)
    mask[y1:y2, x1:x2] = 1
    return mask


def split_of(*pictures: Picture) -> Split:
    return Split("train", Path("train.json"), ("a", "b", "c"), (1, 2, 3), list(pictures))


@pytest.fixture
def split(tmp_path: Path) -> Split:
    size = (150, 200)
    ellipse = np.zeros(size, np.uint8)
    cv2.ellipse(ellipse, (90, 70), (60, 30), 25, 0, 360, 1, -1)
    return split_of(
        drawn(1, tmp_path / "1.png", size, ellipse, box(size, 150, 100, 190, 140), box(size, 2, 2, 12, 9)),
        drawn(2, tmp_path / "2.png", (50, 60), box((50, 60), 10, 10, 30, 40)),
        drawn(3, tmp_path / "3.png", (300, 280), box((300, 280), 0, 0, 20, 20)),
    )


def test_tiles_have_what_is_seen_of_the_objects(split: Split) -> None:
    tiles = tiles_of(split.pictures, TILING)
    for picture in split.pictures:
        theirs = [tile for tile in tiles if tile.id == picture.id]
        size = (picture.height, picture.width)
        assert [tile.window for tile in theirs] == windows_of(size, TILING)
        for tile in theirs:
            x1, y1, x2, y2 = tile.window
            seen = []
            for annotation in picture.annotations:
                mask = segmentation_to_mask(annotation.segmentation, size)
                if mask[y1:y2, x1:x2].sum() >= max(1, 0.1 * min(mask.sum(), 64 * 64)):
                    seen.append(annotation)
            assert tile.annotations == seen
    assert [tile.window for tile in tiles_of(split.pictures, TILING, annotated=False)] == [t.window for t in tiles]


def test_a_small_rest_is_left_out_and_a_large_object_is_in_all_its_tiles(tmp_path: Path) -> None:
    size = (64, 640)
    picture = drawn(1, tmp_path / "1.png", size, box(size, 0, 0, 640, 64), box(size, 20, 20, 52, 40))
    tiles = tiles_of([picture], Tiling(size=(64, 64), overlap=0.2, least_part=0.2))
    assert all(tile.annotations[0].id == 0 for tile in tiles)
    # 12 of 32 columns, then 3.
    assert [len(tile.annotations) for tile in tiles[:2]] == [2, 1]
    assert tiles[1].window == (48, 0, 112, 64)
    more = tiles_of([picture], Tiling(size=(64, 64), overlap=0.2, least_part=0.1))
    assert [len(tile.annotations) for tile in more[:3]] == [2, 2, 1]


def test_masks_of_a_batch_lie_on_their_objects(split: Split) -> None:
    seen = 0
    large = dataclasses.replace(split, pictures=[split.pictures[0], split.pictures[2]])  # whose tiles are not resized
    for [batch] in TrainBatches(large, recipe(batch_size=1)).epoch(0):
        image = np.round(batch["image"][0, 0] * 255)
        for mask, (x1, y1, x2, y2) in zip(batch["gt_mask"][0], batch["gt_bbox"][0].astype(int), strict=True):
            assert mask.sum() >= LEAST_PIXELS
            [value] = set(image[mask > 0].tolist())
            assert value > 0
            np.testing.assert_array_equal(image == value, mask > 0)
            assert mask[y1:y2, x1:x2].sum() == mask.sum()
            seen += 1
    assert seen > 8


def test_an_epoch_has_all_tiles_with_objects_and_a_share_of_the_others(split: Split) -> None:
    tiles = tiles_of(split.pictures, TILING)
    full = sum(bool(tile.annotations) for tile in tiles)
    batches = TrainBatches(split, recipe(batch_size=1))
    assert batches.pictures == len(batches) == full + round(0.5 * full)
    epochs = []
    for number in (0, 1, 0):
        made = [batch for [batch] in batches.epoch(number)]
        assert sum(len(batch["gt_class"][0]) > 0 for batch in made) == full
        epochs.append([batch["image"] for batch in made])
    assert all(np.array_equal(a, b) for a, b in zip(epochs[0], epochs[2], strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(epochs[0], epochs[1], strict=True))
    everything = TrainBatches(split, recipe(TILING.model_copy(update={"empty": 1000.0}), batch_size=1))
    assert everything.pictures == len(tiles)
    none = TrainBatches(split, recipe(TILING.model_copy(update={"empty": 0.0}), batch_size=1, class_balanced=True))
    assert none.pictures == full
    assert all(len(batch["gt_class"][0]) for [batch] in none.epoch(3))


def test_a_resumed_epoch_goes_on_with_the_same_tiles(split: Split) -> None:
    batches = TrainBatches(split, recipe(train_transforms=[{"HorizontalFlip": {"p": 0.5}}]))
    whole = [batch["image"] for [batch] in batches.epoch(5)]
    rest = [batch["image"] for [batch] in batches.epoch(5, skip=2)]
    assert len(rest) == len(whole) - 2
    assert all(np.array_equal(a, b) for a, b in zip(whole[2:], rest, strict=True))


def test_crowds_make_no_tile_worth_training_on(tmp_path: Path) -> None:
    size = (64, 300)
    picture = drawn(1, tmp_path / "1.png", size, box(size, 0, 0, 20, 20), box(size, 200, 0, 300, 64), crowd=(1,))
    assert TrainBatches(split_of(picture), recipe(Tiling(size=(64, 64), empty=0), batch_size=1)).pictures == 1


def test_evaluation_sees_every_tile(split: Split) -> None:
    seen = [row for batch in eval_batches(split, recipe()) for row in batch]
    assert [picture.window for picture, _ in seen] == [tile.window for tile in tiles_of(split.pictures, TILING)]
    for picture, prepared in seen:
        x1, y1, x2, y2 = picture.window
        assert prepared.size == (y2 - y1, x2 - x1)
        rgb = cv2.imread(str(picture.path))[y1:y2, x1:x2, ::-1]
        expected = cv2.resize(rgb, (64, 64), interpolation=cv2.INTER_NEAREST)
        np.testing.assert_array_equal(np.round(prepared.image.transpose(1, 2, 0) * 255), expected)


def test_a_reader_decodes_a_picture_once_for_tiles_that_follow(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[Path] = []
    read = tiles_module.read_rgb
    monkeypatch.setattr(tiles_module, "read_rgb", lambda path: decoded.append(path) or read(path))
    reader = Reader()
    tiles = tiles_of(split.pictures, TILING)
    for tile in tiles:
        reader(tile)
    assert decoded == [picture.path for picture in split.pictures]
    monkeypatch.setattr(tiles_module, "KEPT", 1000)
    reader(tiles[-1])  # the only one that is kept, however large
    reader(tiles[0])
    reader(tiles[1])
    reader(tiles[-1])
    assert decoded[3:] == [split.pictures[0].path, split.pictures[2].path]
    assert len(pickle.dumps(reader)) < 1000


def test_tiles_of_a_group_of_pictures_come_together(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = [Picture(i // 10, Path(str(i // 10)), "", 100, 100, []) for i in range(400)]
    order = np.random.default_rng(1).permutation(400)
    monkeypatch.setattr(tiles_module, "KEPT", 8 * 3 * 100 * 100)
    rows = near_each_other(pictures, order, np.random.default_rng(0))
    assert sorted(rows.tolist()) == list(range(400))
    groups = [{pictures[row].id for row in part} for part in np.split(rows, 5)]
    assert [len(group) for group in groups] == [8] * 5
    assert len(set().union(*groups)) == 40
    within = [pictures[row].id for row in rows[:80]]
    assert within != sorted(within)
    monkeypatch.setattr(tiles_module, "KEPT", 2**40)
    np.testing.assert_array_equal(near_each_other(pictures, order, np.random.default_rng(0)), order)


def test_without_tiling_nothing_changes(split: Split) -> None:
    batches = TrainBatches(split, recipe(None, batch_size=1))
    made = [batch["image_ids"][0] for [batch] in batches.epoch(0)]
    rng = np.random.default_rng([0, 0])
    assert made == [split.pictures[row].id for row in rng.permutation(3)]
    assert all(picture.window is None for picture in split.pictures)
    whole = dataclasses.replace(split.pictures[1], window=(0, 0, 60, 50))
    np.testing.assert_array_equal(Reader()(whole), Reader()(split.pictures[1]))
