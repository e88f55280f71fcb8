from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from numpy.typing import NDArray

from tests.pictures import write_dataset
from toolkit.data.coco import find_dataset
from toolkit.data.loader import TrainBatches, eval_batches
from toolkit.errors import UserError
from toolkit.evaluate.ap import evaluate
from toolkit.evaluate.detect import detect
from toolkit.models import build_model
from toolkit.models.ppyoloe_seg import TINY, Objects, PPYOLOESeg
from toolkit.recipe import load_recipe
from toolkit.train.batch import to_tensors

NAME = "PP-YOLOE_seg-S"
SIDE = 64


def tiny(*, classes: int = 3, seed: int = 0) -> PPYOLOESeg:
    """A small variant whose predictors are not zero, so that what is in front of them has a gradient."""
    paddle.seed(seed)
    model: PPYOLOESeg = build_model(NAME, classes, **TINY)
    for layer in [*model.yolo_head.pred_cls, *model.yolo_head.pred_reg]:
        layer.weight.set_value(0.05 * paddle.randn(layer.weight.shape))
    return model


def make_batch(
    boxes: Sequence[Sequence[tuple[int, int, int, int]]], *, size: tuple[int, int] = (SIDE, SIDE), seed: int = 0
) -> dict[str, Any]:
    """One picture of noise for each list of boxes; each object fills its box and has class 0, 1, 2, 0 .."""
    rng = np.random.default_rng(seed)
    masks: list[NDArray[np.uint8]] = []
    for group in boxes:
        masks.append(np.zeros((len(group), *size), np.uint8))
        for mask, (x1, y1, x2, y2) in zip(masks[-1], group, strict=True):
            mask[y1:y2, x1:x2] = 1
    return {
        "image": paddle.to_tensor(rng.random((len(boxes), 3, *size), np.float32)),
        "im_shape": paddle.to_tensor([[float(side) for side in size]] * len(boxes)),
        "scale_factor": paddle.ones([len(boxes), 2]),
        "gt_class": [paddle.to_tensor(np.arange(len(group), dtype=np.int64) % 3) for group in boxes],
        "gt_bbox": [paddle.to_tensor(np.array(group, np.float32).reshape(-1, 4)) for group in boxes],
        "gt_mask": [paddle.to_tensor(mask) for mask in masks],
    }


def gradients(model: PPYOLOESeg, batch: dict[str, Any]) -> tuple[dict[str, float], dict[str, float]]:
    """Losses, and the norm of every trainable parameter's gradient."""
    model.train()
    losses = model(batch)
    losses["loss"].backward()
    norms = {
        name: float("nan") if p.grad is None else float(p.grad.norm())
        for name, p in model.named_parameters()
        if not p.stop_gradient
    }
    return {name: float(loss) for name, loss in losses.items()}, norms


def test_an_alpha_that_is_not_positive_rests() -> None:
    model = tiny()
    alpha = model.backbone.stages[1].blocks[0].conv2.alpha
    alpha.set_value(paddle.to_tensor([-0.5]))
    _, norms = gradients(model, make_batch([[(4, 4, 40, 40)]]))
    assert norms["backbone.stages.1.blocks.0.conv2.alpha"] == 0


def test_pictures_without_objects_are_negatives() -> None:
    losses, norms = gradients(tiny(), make_batch([[], []]))
    assert losses["loss_cls"] > 0
    assert losses["loss_iou"] == losses["loss_dfl"] == losses["loss_mask"] == losses["loss_l1"] == 0
    assert losses["loss"] == pytest.approx(losses["loss_cls"])
    assert all(np.isfinite(norm) for norm in norms.values())
    assert norms["yolo_head.pred_cls.0.bias"] > 0


def test_a_negative_beside_a_positive_changes_no_box_or_mask_loss() -> None:
    # Without batch statistics the pictures do not see each other.
    model = tiny()
    model.eval()
    alone = make_batch([[(4, 4, 40, 40), (30, 20, 60, 60)]])
    both = make_batch([[(4, 4, 40, 40), (30, 20, 60, 60)], []])
    one, two = model.losses(alone), model.losses(both)
    for name in ("loss_iou", "loss_dfl", "loss_mask", "loss_l1"):
        assert float(one[name]) == pytest.approx(float(two[name]), rel=1e-4)
    assert float(two["loss_cls"]) > float(one["loss_cls"])


@pytest.mark.parametrize("box", [(20, 20, 21, 21), (24, 24, 25, 25), (63, 63, 64, 64), (20, 20, 20, 20), (0, 0, 64, 1)])
def test_objects_of_one_pixel_or_none(box: tuple[int, int, int, int]) -> None:
    losses, norms = gradients(tiny(), make_batch([[box], [box, (8, 8, 56, 56)]]))
    assert all(np.isfinite(loss) for loss in losses.values())
    assert all(np.isfinite(norm) for norm in norms.values())
    assert losses["loss_mask"] > 0


def test_objects_are_padded_to_the_longest_list() -> None:
    batch = make_batch([[(0, 0, 8, 8)], [], [(8, 8, 16, 20), (1, 2, 30, 40)]])
    gt = Objects.of(batch)
    assert gt.exist.numpy().tolist() == [[True, False], [False, False], [True, True]]
    assert gt.boxes[2].numpy().tolist() == [[8, 8, 16, 20], [1, 2, 30, 40]]
    assert gt.classes.numpy().tolist() == [[0, 0], [0, 0], [0, 1]]
    for picture, row in ((0, 0), (2, 0), (2, 1)):
        expected = batch["gt_mask"][picture][row].numpy()[::4, ::4]
        np.testing.assert_array_equal(gt.masks[gt.rows[picture, row]].numpy(), expected)
    assert not gt.masks[gt.rows[1, 0]].numpy().any()


@pytest.mark.parametrize("classes", [1, 5])
def test_other_numbers_of_classes(classes: int) -> None:
    model = tiny(classes=classes)
    batch = make_batch([[(4, 4, 40, 40)]])
    losses, _ = gradients(model, batch)
    assert np.isfinite(losses["loss"])
    model.eval()
    boxes, scores, labels, masks = model.network(batch["image"])
    rows = min(300, classes * (64 + 16 + 4))
    assert boxes.shape == [1, rows, 4]
    assert scores.shape == labels.shape == [1, rows]
    assert masks.shape == [1, rows, 16, 16]
    assert int(labels.max()) < classes


@pytest.mark.parametrize("size", [(32, 32), (96, 160), (224, 64)])
def test_any_multiple_of_32(size: tuple[int, int]) -> None:
    model = tiny()
    height, width = size
    batch = make_batch([[(0, 0, width, height), (2, 2, width // 2, height // 2)]], size=size)
    losses, norms = gradients(model, batch)
    assert np.isfinite(losses["loss"])
    assert losses["loss_mask"] > 0
    assert all(np.isfinite(norm) for norm in norms.values())
    model.eval()
    out = model(batch)
    assert out["mask"].shape[1:] == [height, width]
    assert len(out["bbox"]) == len(out["mask"]) == int(out["bbox_num"].sum()) > 0


def test_a_side_that_is_no_multiple_of_32_is_refused() -> None:
    with pytest.raises(UserError, match=r"\[100, 96\].*multiples of 32"):
        build_model(NAME, 3, (100, 96))


def test_a_batch_is_its_pictures_one_by_one() -> None:
    model = tiny()
    model.eval()
    batch = make_batch([[], []])
    both = model.network(batch["image"])
    for i in range(2):
        alone = model.network(batch["image"][i : i + 1])
        for one, two in zip(alone, both, strict=True):
            np.testing.assert_allclose(one[0].numpy(), two[i].numpy(), rtol=1e-4, atol=1e-4)
    out = model(batch)
    assert int(out["bbox_num"].sum()) == len(out["bbox"])
    first = model({**batch, **{key: batch[key][:1] for key in ("image", "im_shape", "scale_factor")}})
    np.testing.assert_allclose(out["bbox"][: len(first["bbox"])].numpy(), first["bbox"].numpy(), rtol=1e-4, atol=1e-3)


def test_rows_are_sorted_and_unused_ones_score_nothing() -> None:
    model = tiny()
    model.eval()
    boxes, scores, _, masks = (output.numpy() for output in model.network(make_batch([[]])["image"]))
    assert (np.diff(scores[0]) <= 0).all()
    assert (scores[scores > 0] > model.score_threshold).all()
    assert np.isfinite(boxes).all()
    assert np.isfinite(masks).all()
    assert (scores == 0).any()


def test_nothing_found() -> None:
    model = tiny()
    model.eval()
    for layer in model.yolo_head.pred_cls:
        layer.bias.set_value(paddle.full_like(layer.bias, -50.0))
    out = model(make_batch([[], []]))
    assert out["bbox"].shape == [0, 6]
    assert out["mask"].shape == [0, SIDE, SIDE]
    assert out["bbox_num"].numpy().tolist() == [0, 0]


def test_results_are_in_pixels_of_the_original() -> None:
    model = tiny()
    model.eval()
    batch = make_batch([[]])
    plain = model(batch)
    height, width = 239, 101
    batch["scale_factor"] = paddle.to_tensor([[SIDE / height, SIDE / width]])
    out = model(batch)
    assert out["mask"].shape[1:] == [height, width]
    scale = np.array([width, height, width, height]) / SIDE
    np.testing.assert_allclose(out["bbox"][:, 2:].numpy(), plain["bbox"][:, 2:].numpy() * scale, rtol=1e-4, atol=1e-3)
    for (x1, y1, x2, y2), mask in zip(out["bbox"][:, 2:].numpy(), out["mask"].numpy(), strict=True):
        rows, columns = np.nonzero(mask)
        assert not len(rows) or (x1 <= columns.min() <= columns.max() < x2 and y1 <= rows.min() <= rows.max() < y2)


@pytest.mark.slow
def test_eight_pictures_are_learnt_by_heart(tmp_path: Path) -> None:
    split = find_dataset(write_dataset(tmp_path / "data", train=8, val=1, side=128)).train
    recipe = load_recipe(NAME, {"data.input_size": [128, 160], "data.train_transforms": [], "data.workers": 0})
    paddle.seed(0)
    model = build_model(NAME, len(split.classes))
    optimizer = paddle.optimizer.AdamW(
        2e-3, parameters=model.parameters(), grad_clip=paddle.nn.ClipGradByGlobalNorm(1.0)
    )
    model.train()
    batches = TrainBatches(split, recipe)
    for epoch in range(90):
        if epoch == 60:
            optimizer.set_lr(2e-4)
        for [batch] in batches.epoch(epoch):
            model(to_tensors(batch))["loss"].backward()
            optimizer.step()
            optimizer.clear_grad()
    assert evaluate(detect(model, eval_batches(split, recipe)), split).mask_ap > 0.8
