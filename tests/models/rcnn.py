"""What tests of Mask R-CNN and Cascade Mask R-CNN share: the reference's batch, drawn pictures, learning by heart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import nn

from tests.pictures import write_dataset
from toolkit.data.coco import find_dataset
from toolkit.data.loader import TrainBatches, eval_batches
from toolkit.evaluate.ap import evaluate
from toolkit.evaluate.detect import detect
from toolkit.recipe import load_recipe
from toolkit.train.batch import to_tensors

SIDE = 96

Shape = tuple[int, int, int, int, int]
"""Class, x1, y1, x2, y2 of a rectangle."""

PICTURES: tuple[list[Shape], ...] = (
    [(0, 8, 10, 40, 38), (1, 50, 40, 90, 88)],
    [(1, 4, 50, 44, 90), (0, 60, 6, 88, 30), (1, 50, 50, 70, 90)],
)

ODD_PICTURES: dict[str, tuple[list[Shape], ...]] = {
    "negatives only": ([], []),
    "one pixel": ([(0, 20, 31, 21, 32)], []),
    "whole picture, corner": ([(0, 0, 0, SIDE, SIDE)] * 3, [(1, 95, 95, 96, 96)]),
}


def drawn(*pictures: list[Shape]) -> dict[str, Any]:
    """A batch of pictures with rectangles on a plain ground."""
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


def train(model: nn.Layer, batch: dict[str, Any], *, steps: int, lr: float = 2e-3) -> nn.Layer:
    """`model` after some steps on one batch, the last quarter of them small, in eval mode."""
    model.train()
    optimizer = paddle.optimizer.AdamW(lr, parameters=model.parameters(), grad_clip=paddle.nn.ClipGradByGlobalNorm(5.0))
    for step in range(steps):
        if step == steps * 3 // 4:
            optimizer.set_lr(lr / 10)
        model(batch)["loss"].backward()
        optimizer.step()
        optimizer.clear_grad()
    model.eval()
    return model


def assert_every_trainable_parameter_learns(model: nn.Layer, batch: dict[str, Any], losses: set[str]) -> None:
    model.train()
    found = model(batch)
    assert set(found) == {"loss", *losses}
    np.testing.assert_allclose(float(found["loss"]), sum(float(found[name]) for name in losses), rtol=1e-5)
    found["loss"].backward()
    for name, parameter in model.named_parameters():
        if not parameter.stop_gradient:
            assert parameter.grad is not None, name
            gradient = parameter.grad.numpy()
            assert np.isfinite(gradient).all(), name
            assert np.abs(gradient).max() > 0, name


def assert_trains(model: nn.Layer, batch: dict[str, Any]) -> None:
    """Loss and gradients are finite, and still are after a step."""
    model.train()
    optimizer = paddle.optimizer.SGD(1e-2, parameters=model.parameters())
    for _ in range(2):
        losses = model(batch)
        losses["loss"].backward()
        for name, loss in losses.items():
            assert np.isfinite(float(loss)), name
        for name, parameter in model.named_parameters():
            if not parameter.stop_gradient:
                assert parameter.grad is not None, name
                assert np.isfinite(parameter.grad.numpy()).all(), name
        optimizer.step()
        optimizer.clear_grad()


def assert_finds_what_was_drawn(model: nn.Layer) -> None:
    with paddle.no_grad():
        out = model(drawn(*PICTURES))
    rows, masks = out["bbox"].numpy(), out["mask"].numpy().astype(bool)
    picture = np.repeat(np.arange(2), out["bbox_num"].numpy())
    for i, objects in enumerate(PICTURES):
        for category, x1, y1, x2, y2 in objects:
            mine = (picture == i) & (rows[:, 0] == category) & (rows[:, 1] > 0.3)
            truth = np.zeros((SIDE, SIDE), bool)
            truth[y1:y2, x1:x2] = True
            overlap = (masks[mine] & truth).sum((1, 2)) / (masks[mine] | truth).sum((1, 2))
            assert overlap.max(initial=0) > 0.7, (i, category)


def mask_ap_by_heart(model: nn.Layer, name: str, folder: Path, *, epochs: int, lr: float) -> float:
    """Mask AP of `model` on eight pictures that it has been trained on, two at a time, of different sizes."""
    split = find_dataset(write_dataset(folder / "data", train=8, val=1, side=160)).train
    recipe = load_recipe(
        name,
        {
            "data.input_size": [160, 192],
            "data.train_sizes": [],
            "data.train_transforms": [],
            "data.workers": 0,
            "train.batch_size": 2,
            "evaluate.batch_size": 2,
        },
    )
    batches = TrainBatches(split, recipe)
    optimizer = paddle.optimizer.AdamW(lr, parameters=model.parameters(), grad_clip=paddle.nn.ClipGradByGlobalNorm(5.0))
    model.train()
    for epoch in range(epochs):
        if epoch == epochs * 3 // 4:
            optimizer.set_lr(lr / 10)
        for [batch] in batches.epoch(epoch):
            model(to_tensors(batch))["loss"].backward()
            optimizer.step()
            optimizer.clear_grad()
    return evaluate(detect(model, eval_batches(split, recipe)), split).mask_ap
