"""Cascade Mask R-CNN (Cai and Vasconcelos 2019): Mask R-CNN whose boxes are refined in three stages.

Each stage starts from the boxes of the one before and learns from those that lie on an object ever more exactly. Scores
are averaged over the stages. Everything else is Mask R-CNN's.

Legend: as in `mask_rcnn.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from toolkit.models.mask_rcnn import STRIDES, MaskRCNN, pyramid_parts
from toolkit.models.mask_rcnn import TINY as TINY
from toolkit.nn.boxes import clip, decode
from toolkit.nn.roi_heads import (
    TwoLayers,
    at_least_one,
    box_losses,
    delta_layer,
    detect,
    in_order,
    region_features,
    rows,
    score_layer,
)
from toolkit.nn.sampling import Objects, Targets, targets_of

BACKBONES: dict[str, dict[str, Any]] = {
    "Cascade-MaskRCNN-ResNet50-FPN": {},
    "Cascade-MaskRCNN-ResNet50-vd-SSLDv2-FPN": {"vd": True},
}

OVERLAPS = (0.5, 0.6, 0.7)
"""IoU with an object from which on a stage counts a region as lying on it."""

WEIGHTS = ((10.0, 10.0, 5.0, 5.0), (20.0, 20.0, 10.0, 10.0), (30.0, 30.0, 15.0, 15.0))
"""Of the changes of boxes that each stage predicts, see `encode`."""


def build(
    name: str,
    *,
    num_classes: int,
    input_size: tuple[int, int] | None = None,
    depth: int = 50,
    width: int = 64,
    pyramid_channels: int = 256,
    box_channels: int = 1024,
    mask_convs: int = 4,
    mask_channels: int = 256,
    regions: int = 512,
    sampling: str = "random",
    freeze: bool = True,
) -> MaskRCNN:
    """Build the model `name` of `BACKBONES`; arguments as for Mask R-CNN."""
    parts = pyramid_parts(
        name,
        input_size,
        num_classes=num_classes,
        backbone={**BACKBONES[name], "depth": depth, "width": width, "freeze": freeze},
        channels=pyramid_channels,
        mask_convs=mask_convs,
        mask_channels=mask_channels,
        regions=regions,
        sampling=sampling,
    )
    head = CascadeHead(in_channels=pyramid_channels, width=box_channels, num_classes=num_classes)
    return MaskRCNN(**parts, bbox_head=head, train_proposals=(2000, 2000), test_proposals=(1000, 1000))


class CascadeHead(nn.Layer):
    """Three box heads in a row, each with one change of the box for all classes."""

    def __init__(self, *, in_channels: int, width: int, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.head = nn.LayerList([TwoLayers(in_channels=in_channels, width=width) for _ in OVERLAPS])
        for stage in range(len(OVERLAPS)):
            self.add_sublayer(f"bbox_score_stage{stage}", score_layer(width, num_classes))
            self.add_sublayer(f"bbox_delta_stage{stage}", delta_layer(width, 1))

    def losses(
        self, levels: Sequence[Tensor], targets: Targets, objects: Objects, im_shape: Tensor
    ) -> tuple[dict[str, Tensor], None]:
        """Losses of each stage, starting from the sampled regions; nothing is shared with the mask head."""
        losses = {}
        for stage, weights in enumerate(WEIGHTS):
            logits, deltas, index = self._run(stage, levels, targets.boxes, at_least_one(targets.used))
            classes, distance = box_losses(logits, deltas, targets, index, weights=weights)
            losses[f"loss_bbox_cls_stage{stage}"] = classes / len(WEIGHTS)
            losses[f"loss_bbox_reg_stage{stage}"] = distance / len(WEIGHTS)
            if stage + 1 < len(WEIGHTS):
                targets = self._next(stage, deltas.detach(), targets, index, objects, im_shape)
        return losses, None

    def predict(
        self, levels: Sequence[Tensor], boxes: Tensor, exist: Tensor, im_shape: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Instances among the regions `boxes` `[B, S, 4]` that `exist`, see `toolkit.nn.roi_heads.detect`."""
        scores, everywhere = [], paddle.ones_like(exist)
        for stage, weights in enumerate(WEIGHTS):
            logits, deltas, index = self._run(stage, levels, boxes, everywhere)
            scores.append(F.softmax(in_order(logits, index, boxes))[..., :-1])
            deltas = in_order(deltas, index, boxes)
            if stage + 1 < len(WEIGHTS):
                boxes = clip(decode(deltas, boxes, weights=weights), im_shape)
        mean = paddle.add_n(scores) / len(scores) * exist.astype(deltas.dtype).unsqueeze(-1)
        return detect(mean, deltas, boxes, im_shape, weights=WEIGHTS[-1])

    def _run(self, stage: int, levels: Sequence[Tensor], boxes: Tensor, used: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        cut, index = region_features(levels, boxes, used, strides=STRIDES, resolution=7)
        x = self.head[stage](cut)
        return getattr(self, f"bbox_score_stage{stage}")(x), getattr(self, f"bbox_delta_stage{stage}")(x), index

    def _next(
        self, stage: int, deltas: Tensor, targets: Targets, index: Tensor, objects: Objects, im_shape: Tensor
    ) -> Targets:
        """The regions as this stage has changed them; those that are left without area drop out."""
        changed = decode(deltas, rows(targets.boxes, index), weights=WEIGHTS[stage])
        boxes = paddle.scatter(targets.boxes.flatten(0, 1), index, changed).reshape(targets.boxes.shape)
        boxes = clip(boxes, im_shape)
        exist = targets.used & (boxes[..., 2:] > boxes[..., :2]).all(axis=-1)
        return targets_of(boxes, exist, objects, overlap=OVERLAPS[stage + 1], num_classes=self.num_classes)
