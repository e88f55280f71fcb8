from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import paddle
import pytest
import yaml
from numpy.typing import NDArray
from pycocotools import mask as codec
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from toolkit.errors import UserError
from toolkit.models import build_model
from toolkit.models.mask_rtdetr import TINY, MaskRTDETR
from toolkit.nn.hybrid_encoder import MaskFeatures

NAMES = [f"Mask-RT-DETR-{size}" for size in "SMLXH"]
SIDE = 64


def tiny(*, classes: int = 3, **overrides: Any) -> MaskRTDETR:
    paddle.seed(0)
    model: MaskRTDETR = build_model("Mask-RT-DETR-S", classes, **{**TINY, "freeze": False, **overrides})
    return model


def make_batch(
    boxes: Sequence[Sequence[tuple[int, int, int, int]]], *, size: tuple[int, int] = (SIDE, SIDE), classes: int = 3
) -> dict[str, Any]:
    """One picture of noise for each list of boxes; each object fills its box, classes take turns."""
    rng = np.random.default_rng(0)
    masks: list[NDArray[np.uint8]] = []
    for own in boxes:
        mask = np.zeros((len(own), *size), np.uint8)
        for row, (x1, y1, x2, y2) in enumerate(own):
            mask[row, y1:y2, x1:x2] = 1
        masks.append(mask)
    return {
        "image": paddle.to_tensor(rng.random((len(boxes), 3, *size), "float32")),
        "im_shape": paddle.to_tensor([[float(side) for side in size]] * len(boxes)),
        "scale_factor": paddle.ones([len(boxes), 2]),
        "gt_class": [paddle.arange(len(own)) % classes for own in boxes],
        "gt_bbox": [paddle.to_tensor(np.array(own, "float32").reshape(-1, 4)) for own in boxes],
        "gt_mask": [paddle.to_tensor(mask) for mask in masks],
    }


TWO = [[(4, 4, 30, 28), (34, 10, 60, 50)], [(10, 8, 50, 56)]]


def train_once(model: MaskRTDETR, batch: dict[str, Any]) -> dict[str, float]:
    losses = model(batch)
    losses["loss"].backward()
    values = {name: float(value) for name, value in losses.items()}
    assert np.isfinite(list(values.values())).all()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)
    return values


def test_freezing_keeps_the_stem_and_the_norms_of_the_backbone() -> None:
    model = tiny(freeze=True)
    before = {key: value.numpy() for key, value in model.backbone.state_dict().items()}
    optimizer = paddle.optimizer.SGD(1e-2, parameters=model.parameters())
    train_once(model, make_batch(TWO))
    optimizer.step()
    changed = {key for key, value in model.backbone.state_dict().items() if (value.numpy() != before[key]).any()}
    convolutions = {key for key in before if key.startswith("stages.") and key.endswith("conv.weight")}
    assert changed == convolutions


def test_losses_have_the_names_of_the_reference_and_add_up() -> None:
    values = train_once(tiny(), make_batch(TWO))
    kinds = [f"loss_{kind}" for kind in ("class", "bbox", "giou", "mask", "dice")]
    assert set(values) == {"loss"} | {kind + end for kind in kinds for end in ("", "_aux", "_dn", "_aux_dn")}
    assert values["loss"] == pytest.approx(sum(value for name, value in values.items() if name != "loss"), rel=1e-5)
    assert min(values.values()) > 0


@pytest.mark.parametrize("num_denoising", [0, 20])
def test_pictures_without_objects_teach_the_classes_only(num_denoising: int) -> None:
    values = train_once(tiny(num_denoising=num_denoising), make_batch([[], []]))
    assert {name for name, value in values.items() if value} == {"loss", "loss_class", "loss_class_aux"}


def test_a_picture_without_objects_beside_one_with() -> None:
    values = train_once(tiny(), make_batch([[], TWO[0]]))
    assert min(values.values()) > 0


def test_an_object_of_one_pixel() -> None:
    train_once(tiny(), make_batch([[(13, 17, 14, 18)]]))


def test_more_objects_than_queries() -> None:
    boxes = [(8 * x, 8 * y, 8 * x + 7, 8 * y + 7) for x in range(8) for y in range(8)]
    train_once(tiny(queries=20), make_batch([boxes, TWO[0]]))


@pytest.mark.parametrize("true_aspect", [False, True])
@pytest.mark.parametrize("size", [(64, 128), (96, 32)])
def test_inputs_that_are_not_square(size: tuple[int, int], true_aspect: bool) -> None:
    model = tiny(true_aspect=true_aspect)
    batch = make_batch([[(2, 3, 20, 25)], []], size=size)
    train_once(model, batch)
    model.eval()
    with paddle.no_grad():
        out = model(batch)
    assert tuple(out["mask"].shape[1:]) == size


@pytest.mark.parametrize("classes", [1, 7])
def test_other_numbers_of_classes(classes: int) -> None:
    model = tiny(classes=classes)
    train_once(model, make_batch(TWO, classes=classes))
    model.eval()
    with paddle.no_grad():
        labels = model(make_batch(TWO))["bbox"].numpy()[:, 0]
    assert set(labels.tolist()) <= set(range(classes))


def test_true_aspect_changes_nothing_at_square_inputs() -> None:
    models = [tiny(true_aspect=flag) for flag in (False, True)]
    models[1].set_state_dict(models[0].state_dict())
    outputs = []
    for model in models:
        model.eval()
        with paddle.no_grad():
            outputs.append(model.network(make_batch(TWO)["image"])[0].numpy())
    np.testing.assert_array_equal(*outputs)


def test_true_aspect_puts_anchors_onto_their_pixels() -> None:
    anchors, inside = tiny(true_aspect=True).transformer._anchors([(4, 8)])
    boxes = paddle.nn.functional.sigmoid(anchors)[0].numpy().reshape(4, 8, 4)
    np.testing.assert_allclose(boxes[2, 5, :2], [5.5 / 8, 2.5 / 4], rtol=1e-5)
    assert inside.all()
    # The original's lie outside on the right of a wide picture, and are not used.
    assert not tiny().transformer._anchors([(4, 8)])[1].numpy().reshape(4, 8)[:, 4:].any()


def test_copies_keep_to_their_noise() -> None:
    model = tiny(num_denoising=100)
    objects = model._objects_of(make_batch(TWO))
    copies = model._copies(objects)
    assert copies is not None
    groups = 100 // 2
    assert tuple(copies.classes.shape) == (2, groups * 2)
    classes = copies.classes.numpy().reshape(2, groups, 2)
    assert (classes[1, :, 1] == 3).all()  # the second picture has one object
    wrong = (classes[0] != np.array([0, 1])).mean()
    assert 0.05 < wrong < 0.35  # a quarter is drawn anew, a third of these comes out right
    boxes = paddle.nn.functional.sigmoid(copies.boxes).numpy().reshape(2, groups, 2, 4)[0]
    truth = objects.boxes.numpy()[:2]
    half, side = truth[:, 2:] / 2, truth[:, 2:]
    assert (np.abs(boxes[..., :2] - truth[:, :2]) <= half + 1e-3).all()
    assert (boxes[..., 2:] <= 2 * side + 1e-3).all()
    assert boxes.std(0).min() > 0.01


def test_copies_see_their_group_and_queries_see_queries() -> None:
    from toolkit.models.mask_rtdetr import _separation

    seen = np.isfinite(_separation(4, 2, 7).numpy())
    assert seen[4:, 4:].all()
    assert not seen[4:, :4].any()
    np.testing.assert_array_equal(seen[:4, :4], np.kron(np.eye(2), np.ones((2, 2))).astype(bool))
    assert seen[:4, 4:].all()


def test_copies_do_not_disturb_the_queries() -> None:
    model = tiny()
    batch = make_batch(TWO)
    image = batch["image"]
    objects = model._objects_of(batch)
    *levels, maps = model.neck(model.backbone(image))
    features = MaskFeatures(maps.flatten(2), maps.shape[2:])
    alone = model.transformer(levels, features)
    accompanied = model.transformer(levels, features, model._copies(objects))
    for mine, with_copies in zip(alone[1:], accompanied[2:], strict=True):
        count = mine.logits.shape[1]
        np.testing.assert_allclose(mine.boxes.numpy(), with_copies.boxes[:, -count:].numpy(), atol=1e-4)


def test_masks_have_the_size_of_the_picture() -> None:
    model = tiny()
    model.eval()
    batch = make_batch(TWO) | {"scale_factor": paddle.to_tensor([[64 / 37, 64 / 53]] * 2)}
    with paddle.no_grad():
        out = model(batch)
        boxes, scores, labels, logits = model.network(batch["image"])
    assert out["bbox_num"].numpy().tolist() == [90, 90]  # 30 queries of 3 classes
    assert tuple(out["mask"].shape) == (180, 37, 53)
    assert tuple(logits.shape) == (2, 90, 16, 16)
    rows = out["bbox"].numpy().reshape(2, 90, 6)
    np.testing.assert_allclose(rows[..., 1], scores.numpy(), rtol=1e-6)
    np.testing.assert_array_equal(rows[..., 0], labels.numpy())
    np.testing.assert_allclose(rows[..., 2:], boxes.numpy() * np.array([53, 37, 53, 37]) / 64, atol=1e-3)
    expected = cv2.resize(logits.numpy()[0, 0], (53, 37), interpolation=cv2.INTER_LINEAR) > 0
    assert (out["mask"].numpy()[0] != expected).mean() < 0.01


def test_the_learning_rate_of_the_backbone_goes_with_its_parameters() -> None:
    for name, factor in zip(NAMES, (0.1, 0.1, 0.05, 0.01, 0.01), strict=True):
        model = build_model(name, 2)
        rates = {value.optimize_attr["learning_rate"] for value in model.backbone.stages.parameters()}
        assert rates == {factor}


def test_what_is_wrong_is_named() -> None:
    with pytest.raises(UserError, match="input size 600 x 640 must be multiples of 32"):
        build_model("Mask-RT-DETR-S", 3, (600, 640))
    with pytest.raises(UserError, match="input of 64 x 80: sides must be fixed, and multiples of 32"):
        tiny()(make_batch(TWO, size=(64, 80)))


def test_the_tiny_variant_fits_a_recipe() -> None:
    assert yaml.safe_load(yaml.safe_dump(TINY)) == TINY


@pytest.mark.slow
def test_it_learns_eight_pictures_by_heart() -> None:
    side, steps = 96, 160
    batch = shapes(side)
    model = tiny(backbone_lr=1.0)
    optimizer = paddle.optimizer.AdamW(
        1e-3, parameters=model.parameters(), weight_decay=1e-4, grad_clip=paddle.nn.ClipGradByGlobalNorm(1.0)
    )
    first = last = 0.0
    for step in range(steps):
        optimizer.set_lr(1e-3 * min(1, (step + 1) / 20) * (1 if step < 0.8 * steps else 0.2))
        losses = model(batch)
        losses["loss"].backward()
        optimizer.step()
        optimizer.clear_grad()
        last = float(losses["loss"])
        first = first or last
    assert last < 0.6 * first
    assert mask_ap(model, batch) > 0.8


def shapes(side: int) -> dict[str, Any]:
    """Eight pictures with two discs, squares or triangles each, coloured by class, on a ground of noise."""
    rng = np.random.default_rng(0)
    images, boxes, masks, classes = [], [], [], []
    for _ in range(8):
        image = rng.integers(0, 60, (side, side, 3)).astype("float32")
        own = np.zeros((2, side, side), np.uint8)
        kinds = rng.integers(0, 3, 2)
        for slot, kind in enumerate(kinds):
            radius = int(rng.integers(side // 8, side // 5))
            x = int((0.27 + 0.46 * slot) * side + rng.integers(-4, 5))
            y = int(rng.integers(side // 4, 3 * side // 4))
            if kind == 0:
                cv2.circle(own[slot], (x, y), radius, 1, -1)
            elif kind == 1:
                cv2.rectangle(own[slot], (x - radius, y - radius), (x + radius, y + radius), 1, -1)
            else:
                corners = [[x, y - radius], [x + radius, y + radius], [x - radius, y + radius]]
                cv2.fillPoly(own[slot], [np.array(corners, np.int32)], 1)
            image[own[slot] > 0] = np.array([(220, 60, 60), (60, 200, 80), (70, 90, 230)][kind]) + rng.integers(
                -20, 20, 3
            )
        places = [np.argwhere(mask) for mask in own]
        boxes.append(paddle.to_tensor([[*p.min(0)[::-1], *(p.max(0)[::-1] + 1)] for p in places], dtype="float32"))
        images.append(image.transpose(2, 0, 1) / 255)
        masks.append(paddle.to_tensor(own))
        classes.append(paddle.to_tensor(kinds))
    return {
        "image": paddle.to_tensor(np.stack(images).astype("float32")),
        "im_shape": paddle.full([8, 2], float(side)),
        "scale_factor": paddle.ones([8, 2]),
        "gt_class": classes,
        "gt_bbox": boxes,
        "gt_mask": masks,
    }


def mask_ap(model: MaskRTDETR, batch: dict[str, Any]) -> float:
    model.eval()
    with paddle.no_grad():
        out = model(batch)
    side = batch["image"].shape[2]
    truth = [
        {"image_id": picture, "category_id": int(kind), "segmentation": codec.encode(np.asfortranarray(mask))}
        for picture, (kinds, masks) in enumerate(zip(batch["gt_class"], batch["gt_mask"], strict=True))
        for kind, mask in zip(kinds.numpy(), masks.numpy(), strict=True)
    ]
    for number, entry in enumerate(truth, start=1):
        entry |= {
            "id": number,
            "iscrowd": 0,
            "area": float(codec.area(entry["segmentation"])),
            "bbox": codec.toBbox(entry["segmentation"]).tolist(),
        }
    pictures = np.repeat(np.arange(len(batch["gt_class"])), out["bbox_num"].numpy())
    found = [
        {
            "image_id": int(picture),
            "category_id": int(row[0]),
            "score": float(row[1]),
            "segmentation": codec.encode(np.asfortranarray(mask)),
        }
        for picture, row, mask in zip(pictures, out["bbox"].numpy(), out["mask"].numpy(), strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": i, "height": side, "width": side} for i in range(len(batch["gt_class"]))],
            "categories": [{"id": i} for i in range(3)],
            "annotations": truth,
        }
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(found), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0])
