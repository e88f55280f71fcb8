from __future__ import annotations

from pathlib import Path
from typing import Any

import paddle
import pytest

from tests.models import rcnn
from tests.models.rcnn import ODD_PICTURES, PICTURES, SIDE, drawn
from toolkit.errors import UserError
from toolkit.models import build_model
from toolkit.models.cascade_mask_rcnn import TINY, WEIGHTS
from toolkit.models.mask_rcnn import MaskRCNN
from toolkit.nn.boxes import decode
from toolkit.nn.roi_heads import in_order

NAME = "Cascade-MaskRCNN-ResNet50-FPN"
LOSSES = {"loss_rpn_cls", "loss_rpn_reg", "loss_mask"} | {
    f"loss_bbox_{part}_stage{stage}" for part in ("cls", "reg") for stage in range(3)
}


def tiny(**overrides: Any) -> MaskRCNN:
    paddle.seed(0)
    return build_model(NAME, 2, **{**TINY, "freeze": False, **overrides})


@pytest.fixture(scope="module")
def trained() -> MaskRCNN:
    return rcnn.train(tiny(), drawn(*PICTURES), steps=50)


@pytest.mark.parametrize("freeze", [True, False])
def test_every_trainable_parameter_learns(freeze: bool) -> None:
    rcnn.assert_every_trainable_parameter_learns(tiny(freeze=freeze), drawn(*PICTURES), LOSSES)


@pytest.mark.parametrize("pictures", ODD_PICTURES.values(), ids=ODD_PICTURES.keys())
def test_odd_pictures_train(pictures: tuple[list[rcnn.Shape], ...]) -> None:
    rcnn.assert_trains(tiny(), drawn(*pictures))


def test_network_keeps_its_contract(trained: MaskRCNN) -> None:
    batch = drawn(*PICTURES)
    with paddle.no_grad():
        boxes, scores, labels, masks = trained.network(batch["image"], paddle.to_tensor([[80.0, SIDE]] * 2))
    assert boxes.shape == [2, 100, 4]
    assert labels.dtype == paddle.int64
    assert masks.shape == [2, 100, 30, 30]
    assert (scores[:, 0] > 0.5).all()
    assert (scores[:, :-1] >= scores[:, 1:]).all()
    assert float(boxes[..., [1, 3]].max()) <= 80


def test_what_was_drawn_is_found(trained: MaskRCNN) -> None:
    rcnn.assert_finds_what_was_drawn(trained)


def test_later_stages_refine_the_boxes(trained: MaskRCNN) -> None:
    """From boxes that are off by a few pixels, the third stage ends closer to the objects than the first."""
    batch = drawn(*PICTURES)
    truth = paddle.stack([boxes[:2] for boxes in batch["gt_bbox"]])
    boxes = truth + paddle.to_tensor([5.0, -4.0, 6.0, 5.0])
    distances = []
    with paddle.no_grad():
        levels = trained._levels(batch["image"])
        for stage, weights in enumerate(WEIGHTS):
            _, deltas, index = trained.bbox_head._run(stage, levels, boxes, paddle.ones([2, 2], "bool"))
            boxes = decode(in_order(deltas, index, boxes), boxes, weights=weights)
            distances.append(float((boxes - truth).abs().mean()))
    assert distances[2] < distances[0] < 5


def test_a_size_that_the_pyramid_cannot_halve_is_refused() -> None:
    with pytest.raises(UserError, match="multiples of 32"):
        build_model(NAME, 2, (250, 320))


@pytest.mark.slow
def test_eight_pictures_are_learnt_by_heart(tmp_path: Path) -> None:
    assert rcnn.mask_ap_by_heart(tiny(), NAME, tmp_path, epochs=60, lr=1e-3) > 0.8
