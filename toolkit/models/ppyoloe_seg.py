"""PP-YOLOE_seg: boxes by PP-YOLOE (Xu et al. 2022, arXiv:2203.16250), masks by YOLACT's prototypes and coefficients.

Legend: B pictures, h x w network input in pixels, A predictions (one for each cell of each level, coarse level first),
C classes, M prototypes, R bins of a distance, P positive predictions of a batch, n objects of a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from toolkit.errors import UserError
from toolkit.losses.box_mask import box_mask_loss
from toolkit.losses.dfl import distribution_focal_loss
from toolkit.losses.focal import varifocal_loss
from toolkit.losses.iou import giou
from toolkit.losses.task_aligned import assign
from toolkit.models.base import InstanceSegmentationModel
from toolkit.nn.csppan import CSPPAN
from toolkit.nn.cspresnet import ConvNorm, CSPResNet
from toolkit.nn.denominator import over_processes
from toolkit.nn.nms import select
from toolkit.nn.shape import leading

STRIDES = (32, 16, 8)
"""Network pixels per cell of the levels."""
MASK_STRIDE = 4
"""Network pixels per cell of the prototypes."""
BINS = 17
"""Distances are learnt as distributions over 0, 1 .. 16 cells."""
PROTOTYPES = 32
LOSS_WEIGHTS = {"loss_cls": 1.0, "loss_iou": 2.5, "loss_dfl": 0.5, "loss_mask": 2.5}

TINY: dict[str, Any] = {"width": 0.125, "depth": 0.33}


def build(
    name: str,
    *,
    num_classes: int,
    input_size: tuple[int, int] | None = None,
    width: float = 0.50,
    depth: float = 0.33,
    freeze: bool = True,
) -> PPYOLOESeg:
    """PP-YOLOE_seg-S, or a variant of other `width` (channels) and `depth` (blocks).

    `freeze` is taken for the sake of the other families: nothing of this one is ever frozen.

    Raises UserError for an `input_size` whose sides are not multiples of 32.
    """
    if input_size and any(side % STRIDES[0] for side in input_size):
        raise UserError(f"{name}: data.input_size {list(input_size)}: both sides must be multiples of {STRIDES[0]}")
    return PPYOLOESeg(num_classes=num_classes, width=width, depth=depth)


class Predictions(NamedTuple):
    """What the head returns for a batch."""

    class_logits: Tensor
    """`[B, A, C]`."""
    distance_logits: Tensor
    """`[B, A, 4, R]`: of the distances from the cell's centre to left, top, right and bottom, in cells."""
    coefficients: Tensor
    """`[B, A, M]`: what a mask is mixed with, as logits, from the prototypes."""
    prototypes: Tensor
    """`[B, M, h / 4, w / 4]`."""
    points: Tensor
    """`[A, 2]`: x, y of the cells' centres, in network pixels."""
    strides: Tensor
    """`[A, 1]`: network pixels per cell."""


class PPYOLOESeg(InstanceSegmentationModel):
    """Backbone, neck, head."""

    mask_clip = True
    score_threshold = 0.01
    nms_iou = 0.7
    nms_candidates = 1000
    detections = 300

    def __init__(self, *, num_classes: int, width: float, depth: float) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.backbone = CSPResNet(
            channels=[round(c * width) for c in (64, 128, 256, 512, 1024)],
            blocks=[max(round(n * depth), 1) for n in (3, 6, 6, 3)],
        )
        out_channels = [round(c * width) for c in (768, 384, 192)]
        self.neck = CSPPAN(
            in_channels=self.backbone.out_channels, out_channels=out_channels, blocks=max(round(3 * depth), 1)
        )
        self.yolo_head = Head(out_channels, num_classes=num_classes, mask_channels=round(256 * width))

    def predict(self, image: Tensor) -> Predictions:
        predictions: Predictions = self.yolo_head(self.neck(self.backbone(image)))
        return predictions

    def network(
        self, image: Tensor, im_shape: Tensor | None = None, threshold: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The part that exports: `image` `[B, 3, h, w]` -> the best K instances of each picture, best first.

        Returns boxes `[B, K, 4]` (x1 y1 x2 y2 in network pixels), scores `[B, K]` (0 in unused rows), labels
        int64 `[B, K]`, and masks `[B, K, h / 4, w / 4]`, which are positive inside after bilinear resizing. `im_shape`
        is not looked at: the input is all picture. `threshold` `[1]`: rows that score less in all pictures are left
        out.
        """
        p = self.predict(image)
        boxes = _boxes(p.points, self.yolo_head.distances(p.distance_logits) * p.strides)
        best = select(
            boxes,
            F.sigmoid(p.class_logits).transpose([0, 2, 1]),
            keep=self.detections,
            threshold=self.score_threshold,
            iou=self.nms_iou,
            candidates=self.nms_candidates,
        )
        scores, labels, index = leading(threshold, *best)
        boxes = paddle.take_along_axis(boxes, index.unsqueeze(-1), axis=1)
        coefficients = paddle.take_along_axis(p.coefficients, index.unsqueeze(-1), axis=1)
        masks = paddle.matmul(coefficients, p.prototypes.flatten(2))  # [B, K, h / 4 * w / 4]
        # The reference resizes probabilities and cuts at one half.
        masks = (F.sigmoid(masks) - 0.5).reshape([0, 0, *p.prototypes.shape[2:]])
        return boxes, scores, labels, masks

    def losses(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """`loss` and its parts `loss_cls`, `loss_iou`, `loss_dfl`, `loss_mask`; `loss_l1` is for the record."""
        p = self.predict(batch["image"])
        gt = Objects.of(batch)
        centres = p.points / p.strides
        boxes = _boxes(centres, self.yolo_head.distances(p.distance_logits))  # in cells, like all distances below
        given = assign(
            F.sigmoid(p.class_logits).detach(), boxes.detach() * p.strides, p.points, gt.classes, gt.boxes, gt.exist
        )
        total = over_processes(given.quality.sum())

        classes = F.one_hot(paddle.take_along_axis(gt.classes, given.owner, axis=1), self.num_classes).astype("bool")
        targets = given.quality.unsqueeze(-1).expand_as(p.class_logits)
        targets = paddle.where(classes & given.positive.unsqueeze(-1), targets, paddle.full_like(targets, -1.0))

        positive = given.positive.nonzero()  # [P, 2]: picture, prediction
        picture, prediction = positive.unbind(1)
        owner = paddle.stack([picture, given.owner.gather_nd(positive)], axis=1)
        quality = given.quality.gather_nd(positive)
        stride = p.strides[prediction]
        box, gt_box = boxes.gather_nd(positive), gt.boxes.gather_nd(owner) / stride
        gt_distances = _distances(centres[prediction], gt_box).clip(0, BINS - 1.01)
        dfl = distribution_focal_loss(p.distance_logits.gather_nd(positive), gt_distances).mean(-1)
        gt_mask = gt.masks[gt.rows.gather_nd(owner)].astype("float32")
        mask = box_mask_loss(_mask_logits(p, given.positive, positive), gt_mask, gt_box * stride / MASK_STRIDE)

        parts = {
            "loss_cls": varifocal_loss(p.class_logits, targets).sum() / total,
            "loss_iou": ((1 - giou(box, gt_box)) * quality).sum() / total,
            "loss_dfl": (dfl * quality).sum() / total,
            "loss_mask": mask.sum() / total,
        }
        loss = sum(weight * parts[name] for name, weight in LOSS_WEIGHTS.items())
        return {"loss": loss, **parts, "loss_l1": (box - gt_box).detach().abs().sum() / max(4 * len(positive), 1)}


class Head(nn.Layer):
    """Class, distances and mask coefficients for each cell of each level, and the mask prototypes.

    Args:
        in_channels: of the levels, coarse to fine.
        mask_channels: inside the branch of the prototypes.
    """

    def __init__(self, in_channels: Sequence[int], *, num_classes: int, mask_channels: int) -> None:
        super().__init__()
        self.stem_cls = nn.LayerList([AttendedConv(c) for c in in_channels])
        self.stem_reg = nn.LayerList([AttendedConv(c) for c in in_channels])
        self.stem_ins = nn.LayerList([AttendedConv(c) for c in in_channels])
        # Training starts from a score of 0.01 everywhere and from even distributions of the distances.
        zero = nn.initializer.Constant(0.0)
        rare = nn.initializer.Constant(float(np.log(0.01 / 0.99)))
        one = nn.initializer.Constant(1.0)
        self.pred_cls = nn.LayerList(
            [nn.Conv2D(c, num_classes, 3, padding=1, weight_attr=zero, bias_attr=rare) for c in in_channels]
        )
        self.pred_reg = nn.LayerList(
            [nn.Conv2D(c, 4 * BINS, 3, padding=1, weight_attr=zero, bias_attr=one) for c in in_channels]
        )
        # Masks start undecided: with coefficients of size 1 their loss would drown all others for epochs.
        small = nn.initializer.Normal(std=0.01)
        self.pred_ins = nn.LayerList([nn.Conv2D(c, PROTOTYPES, 3, padding=1, weight_attr=small) for c in in_channels])
        self.proto = PrototypeBranch(in_channels[-1], mask_channels)
        # Fixed, and a layer only because the published weights hold it: the distance that each bin stands for.
        self.proj_conv = nn.Conv2D(BINS, 1, 1, bias_attr=False)
        self.proj_conv.weight.set_value(paddle.arange(BINS, dtype="float32").reshape([1, BINS, 1, 1]))
        self.proj_conv.weight.stop_gradient = True

    def forward(self, levels: Sequence[Tensor]) -> Predictions:
        classes, distances, coefficients, points, strides = [], [], [], [], []
        for i, stride in enumerate(STRIDES):
            x = levels[i]
            mean = F.adaptive_avg_pool2d(x, 1)
            classes.append(self.pred_cls[i](self.stem_cls[i](x, mean) + x).flatten(2))
            distances.append(self.pred_reg[i](self.stem_reg[i](x, mean)).flatten(2))
            coefficients.append(self.pred_ins[i](self.stem_ins[i](x, mean) + x).flatten(2))
            points.append(_cell_centres(x.shape[2], x.shape[3]) * stride)
            strides.append(paddle.full([x.shape[2] * x.shape[3], 1], float(stride)))
        flat = [paddle.concat(part, axis=2).transpose([0, 2, 1]) for part in (classes, distances, coefficients)]
        return Predictions(
            class_logits=flat[0],
            distance_logits=flat[1].reshape([0, 0, 4, BINS]),
            coefficients=flat[2],
            prototypes=self.proto(levels[-1]),
            points=paddle.concat(points),
            strides=paddle.concat(strides),
        )

    def distances(self, logits: Tensor) -> Tensor:
        """`[B, A, 4, R]` -> `[B, A, 4]`: the expected distances, in cells."""
        return paddle.matmul(F.softmax(logits, axis=-1), self.proj_conv.weight.flatten())


class AttendedConv(nn.Layer):
    """1 x 1 convolution of channels scaled by a sigmoid of their means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Conv2D(channels, channels, 1, weight_attr=nn.initializer.Normal(std=0.001))
        self.conv = ConvNorm(channels, channels, 1)

    def forward(self, x: Tensor, mean: Tensor) -> Tensor:
        return self.conv(x * F.sigmoid(self.fc(mean)))


class PrototypeBranch(nn.Layer):
    """The finest level `[B, c, h / 8, w / 8]` -> prototypes `[B, M, h / 4, w / 4]`."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(in_channels, channels, 3)
        self.upsample = nn.Conv2DTranspose(channels, channels, 2, stride=2)
        self.conv2 = ConvNorm(channels, channels, 3)
        self.conv3 = ConvNorm(channels, PROTOTYPES, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3(self.conv2(self.upsample(self.conv1(x))))


class Objects(NamedTuple):
    """The objects of a batch; where a picture has fewer than n, the rows after them repeat a placeholder."""

    classes: Tensor
    """int64 `[B, n]`."""
    boxes: Tensor
    """`[B, n, 4]`, in network pixels."""
    exist: Tensor
    """bool `[B, n]`."""
    rows: Tensor
    """int64 `[B, n]`: where in `masks` the object is."""
    masks: Tensor
    """uint8 `[objects + 1, h / 4, w / 4]`."""

    @classmethod
    def of(cls, batch: dict[str, Any]) -> Objects:
        counts = np.array([len(classes) for classes in batch["gt_class"]])
        height, width = batch["image"].shape[2:]
        # The placeholder is the last row of each list; n is at least 1 so that no operator meets an empty axis.
        classes = paddle.concat([*batch["gt_class"], paddle.zeros([1], dtype="int64")])
        boxes = paddle.concat([*batch["gt_bbox"], paddle.zeros([1, 4])])
        masks = paddle.concat([*batch["gt_mask"], paddle.zeros([1, height, width], dtype="uint8")])
        slots = np.arange(max(counts.max(), 1))
        exist = slots < counts[:, None]
        first = counts.cumsum() - counts
        rows = paddle.to_tensor(np.where(exist, first[:, None] + slots, counts.sum()))
        return cls(
            classes=classes[rows],
            boxes=boxes[rows],
            exist=paddle.to_tensor(exist),
            rows=rows,
            masks=masks[:, ::MASK_STRIDE, ::MASK_STRIDE],
        )


def _cell_centres(height: int, width: int) -> Tensor:
    """`[height * width, 2]`: x, y of the centres of a grid's cells, row by row, in cells."""
    rows, columns = paddle.meshgrid(
        paddle.arange(height, dtype="float32") + 0.5, paddle.arange(width, dtype="float32") + 0.5
    )
    return paddle.stack([columns.flatten(), rows.flatten()], axis=1)


def _boxes(centres: Tensor, distances: Tensor) -> Tensor:
    """Boxes `[..., 4]` at `distances` `[..., 4]` (left, top, right, bottom) from `centres` `[..., 2]`."""
    return paddle.concat([centres - distances[..., :2], centres + distances[..., 2:]], axis=-1)


def _distances(centres: Tensor, boxes: Tensor) -> Tensor:
    """The inverse of `_boxes`."""
    return paddle.concat([centres - boxes[..., :2], boxes[..., 2:] - centres], axis=-1)


def _mask_logits(p: Predictions, chosen: Tensor, positive: Tensor) -> Tensor:
    """`[P, h / 4, w / 4]`: masks of the `chosen` (bool `[B, A]`) predictions, whose indices are `positive` `[P, 2]`."""
    coefficients = p.coefficients.gather_nd(positive).split(chosen.sum(1).tolist())
    # Picture by picture: one batched product would fill all up to the picture with the most objects.
    masks = [c @ prototypes for c, prototypes in zip(coefficients, p.prototypes.flatten(2), strict=True)]
    return paddle.concat(masks).reshape([-1, *p.prototypes.shape[2:]])
