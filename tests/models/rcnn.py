"""What tests of Mask R-CNN and Cascade Mask R-CNN share: the reference's batch, drawn pictures, learning by heart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import nn

from tests.golden import reference
from tests.pictures import write_dataset
from toolkit.data.coco import find_dataset
from toolkit.data.loader import TrainBatches, eval_batches
from toolkit.evaluate.ap import evaluate
from toolkit.evaluate.detect import detect
from toolkit.models import build_model
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


def reference_model(name: str, golden: Any) -> nn.Layer:
    model = build_model(name, reference.CLASSES, reference.INPUT_SIZE, sampling="first")
    reference.load(model, golden)
    return model


def reference_batch(*, train: bool) -> dict[str, Any]:
    batch = reference.batch(train=train)
    image = batch["image"].numpy()
    # Each step rounded to float32 once: then the input is bit for bit the reference's.
    image -= np.array([0.485, 0.456, 0.406]).reshape(3, 1, 1)
    image /= np.array([0.229, 0.224, 0.225]).reshape(3, 1, 1)
    return batch | {"image": paddle.to_tensor(image)}


def assert_inference_equals_the_reference(name: str) -> None:
    golden = reference.figures(name)
    model = reference_model(name, golden)
    model.eval()
    batch = reference_batch(train=False)
    with paddle.no_grad():
        reference.assert_digest(golden, "eval/input/image/0", batch["image"], rtol=0)
        maps = {"backbone": model.backbone(batch["image"])}
        if model.neck is not None:
            maps["neck"] = model.neck(maps["backbone"])
        for part, levels in maps.items():
            for i, level in enumerate(levels):
                reference.assert_digest(golden, f"eval/{part}/{i}", level, rtol=1e-4)
        out = model(batch)
    reference.assert_detections(golden, out, flips=2)
    assert (np.diff(out["bbox"].numpy()[:, 1]) <= 0).all()


def assert_training_equals_the_reference(name: str, *, last_proposal_on_edge: bool = False) -> None:
    """Losses before steps 0, 1, 2 and gradients at step 0.

    Mask targets are cut out of bitmaps, the reference draws polygons: hence the 5 % of `loss_mask` at step 0.

    last_proposal_on_edge: leave the last proposal out at step 2.
    """
    golden = reference.figures(name)
    model = reference_model(name, golden)
    model.train()
    batch = reference_batch(train=True)
    optimizer = paddle.optimizer.SGD(1e-5, parameters=[p for p in model.parameters() if not p.stop_gradient])
    for step, rtol in enumerate((1e-3, 5e-3, 5e-3)):
        if step == 2 and last_proposal_on_edge:
            candidates, keep = model.train_proposals
            model.train_proposals = candidates, keep - 1
        losses = model(batch)
        reference.assert_losses(golden, step, losses, rtol=rtol, of_masks=5e-2 if step == 0 else rtol)
        if step == 2:
            break
        losses["loss"].backward()
        if step == 0:
            reference.assert_gradients(golden, model, rtol=1e-2)
        optimizer.step()
        optimizer.clear_grad()


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
