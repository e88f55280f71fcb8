from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.data.recipes import plain_recipe
from tests.golden import fill
from toolkit.data.coco import Annotation, Picture, Split, find_dataset
from toolkit.data.images import read_rgb
from toolkit.data.loader import LEAST_PIXELS, TrainBatches, eval_batches
from toolkit.data.masks import boxes_of, mask_to_rle, polygons_to_mask
from toolkit.data.preprocess import Preprocess, steps_of
from toolkit.errors import UserError
from toolkit.recipe import Recipe

GOLDEN = Path(__file__).parents[1] / "golden"
SHAPES = find_dataset(Path(__file__).parents[2] / "datasets" / "shapes")
AUGMENTATION = [
    {"ColorJitter": {"p": 0.8}},
    {"Expand": {"ratio": [1, 3]}},
    {"InstanceCrop": {}},
    {"HorizontalFlip": {"p": 0.5}},
]


def recipe(*, batch_size: int = 4, workers: int = 0, seed: int = 0, **data: Any) -> Recipe:
    return plain_recipe(
        data={"input_size": [96, 128], "workers": workers, **data},
        train={"batch_size": batch_size, "seed": seed},
        evaluate={"batch_size": 3},
    )


def some(count: int, *, name: str = "train") -> Split:
    split: Split = getattr(SHAPES, name)
    return Split(name, split.json_path, split.classes, split.category_ids, split.pictures[:count])


def one(path: Path, rgb: np.ndarray, masks: list[np.ndarray], *, crowd: tuple[int, ...] = ()) -> Split:
    """A split of one picture."""
    cv2.imwrite(str(path), rgb[..., ::-1])
    height, width = rgb.shape[:2]
    annotations = [
        Annotation(i, i, (0, 0, 1, 1), mask_to_rle(mask), float(mask.sum()), i in crowd) for i, mask in enumerate(masks)
    ]
    picture = Picture(5, path, path.name, height, width, annotations)
    return Split("train", path, tuple("abcdef"), tuple(range(6)), [picture])


def flat(steps: Iterable[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return [part for parts in steps for part in parts]


def assert_same(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> None:
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            for x, y in zip(a[key], b[key], strict=True):
                np.testing.assert_array_equal(x, y)


def test_batches_are_what_models_expect():
    batches = TrainBatches(some(40), recipe(train_transforms=AUGMENTATION))
    assert len(batches) == 10
    seen = []
    empty = 0
    for [batch] in batches.epoch(0):
        assert batch["image"].shape == (4, 3, 96, 128)
        assert batch["image"].dtype == batch["im_shape"].dtype == batch["scale_factor"].dtype == np.float32
        assert 0 <= batch["image"].min() < batch["image"].max() <= 1
        np.testing.assert_array_equal(batch["im_shape"], [[96, 128]] * 4)
        assert all(len(batch[key]) == 4 for key in ("gt_class", "gt_bbox", "gt_mask", "image_ids"))
        for classes, boxes, masks in zip(batch["gt_class"], batch["gt_bbox"], batch["gt_mask"], strict=True):
            assert (classes.dtype, boxes.dtype, masks.dtype) == (np.int64, np.float32, np.uint8)
            assert classes.shape == (len(masks),)
            assert boxes.shape == (len(masks), 4)
            assert masks.shape[1:] == (96, 128)
            assert set(np.unique(masks)) <= {0, 1}
            assert set(classes.tolist()) <= {0, 1, 2}
            np.testing.assert_array_equal(boxes, boxes_of(masks))
            assert (masks.sum((1, 2)) >= LEAST_PIXELS).all()
            empty += not len(masks)
        seen += batch["image_ids"]
    assert sorted(seen) == list(range(1, 41))
    assert empty  # pictures without objects take part


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_do_not_depend_on_the_number_of_workers(workers):
    settings = {"train_transforms": AUGMENTATION, "train_sizes": [64, 96, 128]}
    alone = TrainBatches(some(18), recipe(**settings))
    together = TrainBatches(some(18), recipe(workers=workers, **settings))
    try:
        for epoch in (0, 3):
            assert_same(flat(alone.epoch(epoch)), flat(together.epoch(epoch)))
    finally:
        together.close()


def test_epochs_and_seeds_differ_and_repeat():
    def ids(*, epoch: int, seed: int = 0) -> list[int]:
        batches = TrainBatches(some(20), recipe(seed=seed)).epoch(epoch)
        return [number for [batch] in batches for number in batch["image_ids"]]

    assert ids(epoch=0) == ids(epoch=0)
    assert ids(epoch=0) != ids(epoch=1)
    assert ids(epoch=0) != ids(epoch=0, seed=1)

    augmented = TrainBatches(some(1), recipe(batch_size=1, train_transforms=AUGMENTATION))
    images = [next(augmented.epoch(epoch))[0]["image"] for epoch in range(4)]
    assert all((a != b).any() for i, a in enumerate(images) for b in images[:i])


@pytest.mark.parametrize(
    ("pictures", "batch_size", "sizes"), [(10, 4, [4, 4]), (3, 4, [3]), (1, 4, [1]), (8, 4, [4, 4])]
)
def test_an_incomplete_batch_is_left_out_unless_it_is_the_only_one(pictures, batch_size, sizes):
    batches = TrainBatches(some(pictures), recipe(batch_size=batch_size))
    assert len(batches) == len(sizes)
    assert [len(batch["image_ids"]) for [batch] in batches.epoch(0)] == sizes


def test_one_size_is_drawn_for_each_batch():
    sides = set()
    for [batch] in TrainBatches(some(60), recipe(train_sizes=[64, 96, 128])).epoch(0):
        _, _, height, width = batch["image"].shape
        assert height == width
        assert {masks.shape[1:] for masks in batch["gt_mask"]} == {(height, width)}
        np.testing.assert_array_equal(batch["im_shape"], [[height, width]] * 4)
        sides.add(height)
    assert sides == {64, 96, 128}


def test_with_kept_ratio_pictures_are_padded_to_a_multiple_of_32():
    split = some(8)
    settings = recipe(keep_ratio=True, input_size=[100, 140], mean=[0.5] * 3, std=[0.2] * 3)
    sizes = {picture.id: (picture.height, picture.width) for picture in split.pictures}
    for [batch] in TrainBatches(split, settings).epoch(0):
        _, _, height, width = batch["image"].shape
        assert height % 32 == width % 32 == 0
        for i, number in enumerate(batch["image_ids"]):
            h, w = batch["im_shape"][i].astype(int)
            assert min(h, w) == 100 or max(h, w) == 140
            np.testing.assert_allclose(batch["scale_factor"][i] * sizes[number], (h, w), rtol=1e-5)
            assert not batch["image"][i, :, h:].any()
            assert not batch["image"][i, :, :, w:].any()
            assert batch["gt_mask"][i].shape[1:] == (height, width)
            assert not batch["gt_mask"][i][:, h:].any()
            assert not batch["gt_mask"][i][:, :, w:].any()


@pytest.mark.parametrize("size", [(37, 53), (96, 128), (200, 301), (700, 1000)])
def test_masks_lie_on_their_objects_after_the_resize(tmp_path, size):
    rgb = np.zeros((*size, 3), np.uint8)
    h, w = size
    mask = polygons_to_mask([np.array([0.2 * w, 0.3 * h, 0.7 * w, 0.3 * h, 0.7 * w, 0.8 * h, 0.2 * w, 0.8 * h])], size)
    rgb[mask > 0] = 255
    [batch] = next(TrainBatches(one(tmp_path / "a.png", rgb, [mask]), recipe(interpolation="linear")).epoch(0))
    placed = batch["gt_mask"][0][0]
    # No shift: the mask is where the picture's own brightness passes the middle.
    bright = batch["image"][0, 0] > 0.5
    assert (placed != bright).sum() <= 0.01 * bright.sum() + 40
    rows, columns = np.nonzero(placed)
    expected = np.nonzero(bright)
    assert abs(rows.mean() - expected[0].mean()) <= 0.25
    assert abs(columns.mean() - expected[1].mean()) <= 0.25


def test_crowds_and_what_vanishes_are_left_out(tmp_path):
    masks = [np.zeros((96, 128), np.uint8) for _ in range(4)]
    masks[0][10:40, 10:40] = masks[1][50:80, 50:90] = masks[3][1:3, 1:3] = 1
    masks[2][0, 0:3] = 1  # three pixels
    split = one(tmp_path / "a.png", np.zeros((96, 128, 3), np.uint8), masks, crowd=(1,))
    [batch] = next(TrainBatches(split, recipe()).epoch(0))
    assert batch["gt_class"][0].tolist() == [0, 3]
    assert batch["gt_bbox"][0].tolist() == [[10, 10, 40, 40], [1, 1, 3, 3]]
    assert batch["image_ids"] == [5]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_picture_that_broke_since_is_named(tmp_path, workers):
    split = one(tmp_path / "picture.png", np.zeros((96, 128, 3), np.uint8), [])
    (tmp_path / "picture.png").write_bytes(b"broken")
    batches = TrainBatches(split, recipe(workers=workers))
    with pytest.raises(UserError, match=r"picture\.png: not a picture that can be read"):
        next(batches.epoch(0))
    batches.close()
    with pytest.raises(UserError, match=r"picture\.png: not a picture that can be read"):
        next(iter(eval_batches(split, recipe())))


def test_evaluation_sees_every_picture_in_order_with_its_exact_size():
    split = some(10, name="val")
    batches = eval_batches(split, recipe(workers=2))
    assert len(batches) == 4
    made = list(batches)
    assert [len(batch) for batch in made] == [3, 3, 3, 1]
    preprocess = Preprocess(steps_of(recipe().data), origin="test")
    seen = [row for batch in made for row in batch]
    for (read, prepared), picture in zip(seen, split.pictures, strict=True):
        assert read == picture
        assert prepared.size == (picture.height, picture.width)
        expected = preprocess(read_rgb(picture.path))
        assert prepared.scale_factor == expected.scale_factor
        np.testing.assert_array_equal(prepared.image, expected.image)


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        ("Mask-RT-DETR-S", {"interpolation": "cubic"}),
        ("PP-YOLOE_seg-S", {"interpolation": "cubic"}),
        (
            "SOLOv2",
            {"interpolation": "linear", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
        ),
        (
            "MaskRCNN-ResNet50-FPN",
            {"interpolation": "cubic", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
        ),
    ],
)
def test_the_network_input_is_exactly_the_reference_s(model, settings):
    golden = np.load(GOLDEN / "figures" / f"{model}.npz")
    preprocess = Preprocess(steps_of(recipe(**{**settings, "input_size": [256, 320]}).data), origin="test")
    prepared = preprocess(read_rgb(GOLDEN / "data" / "images" / "0.png"))
    digest = fill.digest(prepared.image[None])
    assert digest["shape"].tolist() == golden["eval/input/image/0/shape"].tolist()
    np.testing.assert_array_equal(digest["sample"], golden["eval/input/image/0/sample"])
    assert digest["absmax"] == golden["eval/input/image/0/absmax"]
    for part in ("mean", "std"):  # sums in float64, in the order of memory
        np.testing.assert_allclose(digest[part], golden[f"eval/input/image/0/{part}"], rtol=1e-12)


def test_rare_classes_come_more_often_and_epochs_stay_as_long(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((32, 32, 3), np.uint8))
    mask = np.zeros((32, 32), np.uint8)
    mask[4:20, 4:20] = 1
    rle = mask_to_rle(mask)
    labelled = [[Annotation(i, int(i < 4), (0, 0, 1, 1), rle, 1, False)] for i in range(40)]
    pictures = [Picture(i, tmp_path / "a.png", "a.png", 32, 32, found) for i, found in enumerate(labelled)]
    split = Split("train", tmp_path, ("common", "rare"), (0, 1), pictures)
    counts = {}
    for balanced in (False, True):
        batches = TrainBatches(split, recipe(class_balanced=balanced, input_size=[32, 32]))
        classes = [int(labels[0]) for number in range(5) for [b] in batches.epoch(number) for labels in b["gt_class"]]
        assert len(classes) == 200
        counts[balanced] = sum(classes)
    # 4 pictures of one class and 36 of the other: 4 / sqrt(4) to 36 / sqrt(36), that is 2 to 6.
    assert counts[False] == 20
    assert counts[True] == pytest.approx(200 * 2 / 8, abs=5)
    assert flat(batches.epoch(1))[0]["image_ids"] == flat(batches.epoch(1))[0]["image_ids"]


@pytest.mark.parametrize(("accumulate", "ranks"), [(2, 1), (1, 2), (2, 2)])
def test_parts_and_ranks_divide_the_same_batches(accumulate, ranks):
    settings = recipe(batch_size=8, train_transforms=AUGMENTATION)
    divided = settings.model_copy(update={"train": settings.train.model_copy(update={"accumulate": accumulate})})
    whole = [b["image_ids"] for [b] in TrainBatches(some(20), settings).epoch(1)]
    each = [list(TrainBatches(some(20), divided, rank=rank, ranks=ranks).epoch(1)) for rank in range(ranks)]
    for step, ids in enumerate(whole):
        parts = [each[rank][step][part]["image_ids"] for part in range(accumulate) for rank in range(ranks)]
        assert [number for part in parts for number in part] == ids
        assert {len(part) for part in parts} == {8 // accumulate // ranks}
    skipped = [b["image_ids"] for [b] in TrainBatches(some(20), settings).epoch(1, skip=1)]
    assert skipped == whole[1:]
