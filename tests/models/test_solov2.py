from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.pictures import CLASSES, write_dataset
from toolkit.errors import UserError
from toolkit.models import build_model
from toolkit.models.solov2 import TINY, SOLOv2, boxes_around, matrix_nms
from toolkit.recipe import load_recipe

SIDE = 96
NAME = "SOLOv2"


@pytest.mark.parametrize(
    ("size", "options", "message"),
    [((250, 320), {}, "multiples of 32"), (None, {"grids": [40, 36]}, "must be 5 numbers")],
)
def test_what_cannot_be_built_is_refused(size: tuple[int, int] | None, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_model(NAME, 2, size, **options)


def tiny(**overrides: Any) -> SOLOv2:
    paddle.seed(0)
    return build_model(NAME, 2, **{**TINY, "freeze": False, **overrides})


def drawn(*pictures: list[tuple[int, int, int, int, int]]) -> dict[str, Any]:
    """A batch of pictures with rectangles on a plain ground: (class, x1, y1, x2, y2)."""
    image = np.full((len(pictures), 3, SIDE, SIDE), -1, np.float32)
    batch: dict[str, Any] = {key: [] for key in ("gt_class", "gt_bbox", "gt_mask")}
    for canvas, objects in zip(image, pictures, strict=True):
        masks = np.zeros((len(objects), SIDE, SIDE), np.uint8)
        for mask, (category, x1, y1, x2, y2) in zip(masks, objects, strict=True):
            mask[y1:y2, x1:x2] = 1
            canvas[category, y1:y2, x1:x2] = 1
        rows = np.array(objects, "int64").reshape(-1, 5)
        batch["gt_class"].append(paddle.to_tensor(rows[:, 0]))
        batch["gt_bbox"].append(paddle.to_tensor(rows[:, 1:].astype("float32")))
        batch["gt_mask"].append(paddle.to_tensor(masks))
    sizes = paddle.full([len(pictures), 2], float(SIDE))
    return batch | {"image": paddle.to_tensor(image), "im_shape": sizes, "scale_factor": paddle.ones_like(sizes)}


PICTURES = (
    [(0, 8, 10, 40, 38), (1, 50, 40, 90, 88)],
    [(1, 4, 50, 44, 90), (0, 60, 6, 88, 30)],
)


@pytest.fixture(scope="module")
def trained() -> SOLOv2:
    """So far that scores and masks differ from each other and from noise."""
    model = tiny()
    model.train()
    batch = drawn(*PICTURES)
    optimizer = paddle.optimizer.AdamW(2e-3, parameters=model.parameters())
    for _ in range(25):
        model(batch)["loss"].backward()
        optimizer.step()
        optimizer.clear_grad()
    model.eval()
    return model


@pytest.mark.parametrize("freeze", [True, False])
def test_every_trainable_parameter_learns(freeze: bool) -> None:
    model = tiny(freeze=freeze)
    model.train()
    losses = model(drawn(*PICTURES))
    assert set(losses) == {"loss", "loss_ins", "loss_cate"}
    losses["loss"].backward()
    for name, parameter in model.named_parameters():
        if not parameter.stop_gradient:
            gradient = parameter.grad.numpy()
            assert np.isfinite(gradient).all(), name
            assert np.abs(gradient).max() > 0, name
    assert model.backbone.conv1.conv1.conv.weight.stop_gradient == freeze
    assert model.backbone.res5.res5a.branch2a.norm.weight.stop_gradient == freeze


@pytest.mark.parametrize(
    "pictures",
    [
        pytest.param(([], []), id="negatives only"),
        pytest.param(([(0, 20, 31, 21, 32)], []), id="one pixel"),
        pytest.param(([(0, 0, 0, SIDE, SIDE)] * 3, [(1, 95, 95, 96, 96)]), id="whole picture, corner"),
    ],
)
def test_odd_pictures_train(pictures: tuple[list[tuple[int, int, int, int, int]], ...]) -> None:
    model = tiny()
    model.train()
    losses = model(drawn(*pictures))
    losses["loss"].backward()
    assert np.isfinite(float(losses["loss"]))
    for name, parameter in model.named_parameters():
        if not parameter.stop_gradient:
            assert parameter.grad is not None, name
            assert np.isfinite(parameter.grad.numpy()).all(), name


def test_a_batch_equals_its_pictures_one_by_one(trained: SOLOv2) -> None:
    batch = drawn(*PICTURES)
    with paddle.no_grad():
        together = trained.network(batch["image"], batch["im_shape"])
        for i in range(2):
            alone = trained.network(batch["image"][i : i + 1], batch["im_shape"][i : i + 1])
            for one, both in zip(alone, together, strict=True):
                np.testing.assert_allclose(one[0].numpy(), both[i].numpy(), atol=1e-4)


def test_network_keeps_its_contract(trained: SOLOv2) -> None:
    batch = drawn(*PICTURES)
    with paddle.no_grad():
        boxes, scores, labels, logits = trained.network(batch["image"], paddle.to_tensor([[SIDE, 80.0]] * 2))
    assert boxes.shape == [2, 100, 4]
    assert labels.dtype == paddle.int64
    assert logits.shape == [2, 100, SIDE // 4, SIDE // 4]
    assert (scores[:, 0] > 0.5).all()
    assert (scores[:, :-1] >= scores[:, 1:]).all()
    assert float(boxes[..., [0, 2]].max()) <= 80
    assert (boxes[..., 2:] >= boxes[..., :2]).all()


def test_what_was_drawn_is_found(trained: SOLOv2) -> None:
    with paddle.no_grad():
        out = trained(drawn(*PICTURES))
    rows, masks = out["bbox"].numpy(), out["mask"].numpy().astype(bool)
    picture = np.repeat(np.arange(2), out["bbox_num"].numpy())
    for i, objects in enumerate(PICTURES):
        for category, x1, y1, x2, y2 in objects:
            mine = (picture == i) & (rows[:, 0] == category)
            truth = np.zeros((SIDE, SIDE), bool)
            truth[y1:y2, x1:x2] = True
            overlap = (masks[mine] & truth).sum((1, 2)) / (masks[mine] | truth).sum((1, 2))
            assert overlap.max() > 0.6


def test_masks_have_the_size_of_the_picture_without_its_padding(trained: SOLOv2) -> None:
    batch = drawn(PICTURES[0])
    batch["im_shape"] = paddle.to_tensor([[90.0, 80.0]])
    batch["scale_factor"] = paddle.to_tensor([[0.5, 0.5]])
    with paddle.no_grad():
        out = trained(batch)
    assert out["mask"].shape[1:] == [180, 160]
    assert len(out["mask"]) > 0
    row, mask = out["bbox"].numpy()[0], out["mask"].numpy()[0]
    x, y, width, height = cv2.boundingRect(mask)
    # The box is that of the network, whose pixels are two of the image.
    assert np.abs(row[2:] - [x, y, x + width, y + height]).max() <= 2


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_matrix_nms_follows_the_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = 12
    masks = (rng.random((count, 30)) > 0.4).astype("float32")
    masks[:, 0] = 1
    labels, valid = rng.integers(0, 2, count), rng.random(count) > 0.2

    def iou(i: int, j: int) -> float:
        if labels[i] != labels[j] or not valid[i]:
            return 0.0
        return float((masks[i] * masks[j]).sum() / np.maximum(masks[i], masks[j]).sum())

    hidden = [max([iou(k, i) for k in range(i)], default=0.0) for i in range(count)]
    expected = [
        min([1.0] + [np.exp(-2 * iou(i, j) ** 2) / np.exp(-2 * hidden[i] ** 2) for i in range(j)]) for j in range(count)
    ]
    factor = matrix_nms(
        masks=paddle.to_tensor(masks[None]),
        valid=paddle.to_tensor(valid[None]),
        labels=paddle.to_tensor(labels[None]),
    )
    np.testing.assert_allclose(factor[0].numpy(), expected, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_boxes_lie_around_the_enlarged_masks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ys, xs = np.mgrid[:24, :32] + 0.5
    maps = []
    for _ in range(4):
        y, x = rng.uniform(0, 24), rng.uniform(0, 32)
        reach = rng.uniform(1.5, 12, 2)
        maps.append(0.5 - 1 / (1 + np.exp(2 - 2 * ((ys - y) ** 2 / reach[0] ** 2 + (xs - x) ** 2 / reach[1] ** 2))))
    logits = -np.array(maps, np.float32)
    boxes = boxes_around(paddle.to_tensor(logits[None]))[0].numpy()
    for box, mask in zip(boxes, logits, strict=True):
        large = paddle.nn.functional.interpolate(
            paddle.to_tensor(mask[None, None]), size=[96, 128], mode="bilinear", align_corners=False
        )
        x, y, width, height = cv2.boundingRect((large[0, 0].numpy() > 0).astype(np.uint8))
        assert np.abs(box - [x, y, x + width, y + height]).max() <= 1


def test_an_empty_mask_has_an_empty_box() -> None:
    assert boxes_around(paddle.full([1, 2, 8, 8], -0.5)).tolist() == [[[0, 0, 0, 0]] * 2]


@pytest.mark.slow
def test_eight_pictures_are_learnt_by_heart(tmp_path: Path) -> None:
    from toolkit.data.coco import find_dataset
    from toolkit.data.loader import TrainBatches, eval_batches
    from toolkit.evaluate.ap import evaluate
    from toolkit.evaluate.detect import detect
    from toolkit.train.batch import to_tensors

    split = find_dataset(write_dataset(tmp_path / "data", train=8, val=1, side=160)).train
    recipe = load_recipe(
        NAME,
        {
            "data.input_size": [160, 192],
            "data.train_transforms": [],
            "data.workers": 0,
            "train.batch_size": 4,
            "evaluate.batch_size": 4,
        },
    )
    assert len(split.classes) == len(CLASSES)
    model = tiny()
    optimizer = paddle.optimizer.AdamW(1e-3, parameters=model.parameters())
    batches = TrainBatches(dataclasses.replace(split, pictures=split.pictures[:8]), recipe)
    model.train()
    for epoch in range(60):
        for [batch] in batches.epoch(epoch):
            model(to_tensors(batch))["loss"].backward()
            optimizer.step()
            optimizer.clear_grad()
    assert evaluate(detect(model, eval_batches(split, recipe)), split).mask_ap > 0.8
