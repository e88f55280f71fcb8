"""SOLOv2 (Wang et al., "SOLOv2: Dynamic and Fast Instance Segmentation", 2020).

Backbone and feature pyramid; a mask feature that all instances share; and, for every cell of five square grids laid
over the picture, the scores of the classes and the kernel that draws the cell's instance: a 1 x 1 convolution over
the mask feature. There are no boxes and no anchors; the boxes that come out are those around the masks.

Legend: B pictures, h x w the network input, G cells of all grids (3872), C classes, E channels of the mask feature,
mh x mw its size (a quarter of the input's), K instances that come out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import paddle
import paddle.nn.functional as F
from paddle import ParamAttr, Tensor, nn
from paddle.nn.initializer import Constant, Normal

from toolkit.errors import UserError
from toolkit.losses.solo import MASK_STRIDE, Cells, solo_losses
from toolkit.models.base import InstanceSegmentationModel
from toolkit.nn.fpn import FPN
from toolkit.nn.resize import resize_bilinear
from toolkit.nn.resnet import ResNet
from toolkit.nn.shape import leading, size_of, take

SCALE_RANGES = ((1, 96), (48, 192), (96, 384), (192, 768), (384, 2048))
"""Objects that each grid is for: sqrt of the box area, in pixels of the network input."""

LEAST_AREAS = (8, 8, 16, 32, 32)
"""Of each grid: a mask of no more pixels of the mask feature than this is noise."""

DETECTIONS = 100
"""Instances of a picture that come out at most."""

TINY: dict[str, Any] = {
    "depth": 18,
    "width": 16,
    "grids": (12, 10, 8, 6, 4),
    "pyramid_channels": 64,
    "head_channels": 64,
    "head_convs": 2,
    "mask_channels": (32, 64),
}


def build(
    name: str,
    *,
    num_classes: int,
    input_size: tuple[int, int] | None = None,
    depth: int = 50,
    width: int = 64,
    pyramid_channels: int = 256,
    grids: Sequence[int] = (40, 36, 24, 16, 12),
    head_channels: int = 512,
    head_convs: int = 4,
    mask_channels: Sequence[int] = (128, 256),
    freeze: bool = True,
) -> SOLOv2:
    """Build the model; it takes any input whose sides are multiples of 32.

    Args:
        depth, width, freeze: of the backbone, see `ResNet`.
        grids: cells along each side of the five grids, finest first.
        head_channels, head_convs: width and depth of the two branches of the head; the width a multiple of 32.
        mask_channels: of the mask branch, and of the mask feature (the length of a kernel); multiples of 32.

    Raises UserError for an `input_size` whose sides are not multiples of 32, and unless there are five grids.
    """
    if input_size and any(side % 32 for side in input_size):
        raise UserError(f"{name}: data.input_size {list(input_size)}: both sides must be multiples of 32")
    if len(grids) != len(SCALE_RANGES):
        raise UserError(f"{name}: model.options.grids {list(grids)}: must be {len(SCALE_RANGES)} numbers, finest first")
    return SOLOv2(
        num_classes=num_classes,
        backbone=ResNet(depth=depth, width=width, freeze=freeze),
        pyramid_channels=pyramid_channels,
        grids=grids,
        head_channels=head_channels,
        head_convs=head_convs,
        mask_channels=mask_channels,
    )


class SOLOv2(InstanceSegmentationModel):
    """Backbone, pyramid and the two heads. For the arguments see `build`."""

    def __init__(
        self,
        *,
        num_classes: int,
        backbone: ResNet,
        pyramid_channels: int,
        grids: Sequence[int],
        head_channels: int,
        head_convs: int,
        mask_channels: Sequence[int],
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = FPN(in_channels=backbone.out_channels, out_channels=pyramid_channels)
        self.solov2_head = SOLOv2Head(
            num_classes=num_classes,
            in_channels=pyramid_channels,
            channels=head_channels,
            convs=head_convs,
            kernel_channels=mask_channels[1],
            grids=grids,
        )
        self.mask_head = MaskHead(
            in_channels=pyramid_channels, channels=mask_channels[0], out_channels=mask_channels[1]
        )
        self.grids = tuple(grids)
        self.detections = min(DETECTIONS, num_classes * sum(g * g for g in grids))
        self.cells = Cells.of(grids=grids, scale_ranges=SCALE_RANGES)

    def losses(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """`loss` and its parts: `loss_ins` of the masks, `loss_cate` of the cells' classes.

        batch: `image` `[B, 3, h, w]`, and one entry a picture of `gt_class` `[n]`, `gt_bbox` `[n, 4]` (x1 y1 x2 y2 in
            pixels of the input) and `gt_mask` `[n, h, w]`; n may be 0.
        """
        features = self.neck(self.backbone(batch["image"]))
        cate_logits, kernels = self.solov2_head(features)
        mask_features = self.mask_head(features)
        # Sums over whole masks need the full precision; under AMP the network gives less.
        with paddle.amp.auto_cast(enable=False):
            losses = solo_losses(
                cate_logits=cate_logits.astype("float32"),
                kernels=kernels.astype("float32"),
                mask_features=mask_features.astype("float32"),
                classes=batch["gt_class"],
                boxes=batch["gt_bbox"],
                masks=batch["gt_mask"],
                cells=self.cells,
            )
        return {"loss": losses["loss_ins"] + losses["loss_cate"], **losses}

    def network(
        self, image: Tensor, im_shape: Tensor | None = None, threshold: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What a picture holds, best first; rows that are not in use have score 0.

        Args:
            image: `[B, 3, h, w]`.
            im_shape: `[B, 2]`, height and width of the picture inside the padded input; boxes are cut to it.
            threshold: `[1]`; rows that score less in all pictures are left out.

        Returns:
            boxes `[B, K, 4]` around the masks, x1 y1 x2 y2 in pixels of the input; scores `[B, K]`; labels `[B, K]`;
            mask logits `[B, K, mh, mw]` over the whole input. These are sigmoid - 0.5 rather than the sigmoid's
            argument: the model's masks are its probabilities, enlarged, above a half.
        """
        features = self.neck(self.backbone(image))
        scores, kernels = self.solov2_head(features)
        scores, labels, logits = select_masks(
            scores,
            kernels,
            self.mask_head(features),
            least_areas=paddle.concat([paddle.full([g * g], float(LEAST_AREAS[i])) for i, g in enumerate(self.grids)]),
            detections=self.detections,
            threshold=threshold,
        )
        boxes = boxes_around(logits)
        if im_shape is not None:
            height, width = im_shape[:, :1], im_shape[:, 1:]
            boxes = paddle.minimum(boxes, paddle.concat([width, height, width, height], axis=1).unsqueeze(1))
        return boxes, scores, labels, logits


class ConvNorm(nn.Layer):
    """3 x 3 (or `kernel`) convolution, group norm, ReLU."""

    def __init__(self, *, in_channels: int, out_channels: int, kernel: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2D(
            in_channels,
            out_channels,
            kernel,
            padding=kernel // 2,
            weight_attr=ParamAttr(initializer=Normal(std=0.01)),
            bias_attr=False,
        )
        self.norm = GroupNorm(num_groups=32, num_channels=out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)))


class GroupNorm(nn.GroupNorm):
    """Group norm that exports."""

    def forward(self, x: Tensor) -> Tensor:
        if paddle.in_dynamic_mode():
            return super().forward(x)
        # paddle2onnx 2.1.0 writes the operator with an uninitialised epsilon: in a graph it is spelt out.
        centred = x - self._average(x)
        scale = paddle.rsqrt(self._average(centred.square()) + self._epsilon)
        return centred * (scale * self.weight.reshape([1, -1, 1, 1])) + self.bias.reshape([1, -1, 1, 1])

    def _average(self, x: Tensor) -> Tensor:
        """Of each channel's group: `[B, C, 1, 1]`."""
        channels = x.shape[1] // self._num_groups
        groups = F.adaptive_avg_pool2d(x, 1).reshape([-1, self._num_groups, channels])
        return (groups.sum(axis=2, keepdim=True) / channels).tile([1, 1, channels]).reshape([-1, x.shape[1], 1, 1])


class SOLOv2Head(nn.Layer):
    """Class scores and mask kernels of every cell, by the same convolutions on all grids."""

    def __init__(
        self,
        *,
        num_classes: int,
        in_channels: int,
        channels: int,
        convs: int,
        kernel_channels: int,
        grids: Sequence[int],
    ) -> None:
        super().__init__()
        self.grids = tuple(grids)

        def tower(first: int) -> nn.LayerList:
            return nn.LayerList(
                ConvNorm(in_channels=channels if i else first, out_channels=channels) for i in range(convs)
            )

        def predictor(outputs: int, bias: float) -> nn.Conv2D:
            return nn.Conv2D(
                channels,
                outputs,
                3,
                padding=1,
                weight_attr=ParamAttr(initializer=Normal(std=0.01)),
                bias_attr=ParamAttr(initializer=Constant(bias)),
            )

        self.bbox_head = nn.Layer()
        self.bbox_head.kernel_convs = tower(in_channels + 2)
        self.bbox_head.cate_convs = tower(in_channels)
        self.bbox_head.solo_kernel = predictor(kernel_channels, 0.0)
        # Hardly any cell holds an object: start from a score of 0.01.
        self.bbox_head.solo_cate = predictor(num_classes, -math.log(99))
        # Official weights hold these two, and the mask head's last layer, under a second name.
        self.solo_kernel = self.bbox_head.solo_kernel
        self.solo_cate = self.bbox_head.solo_cate

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Class logits `[B, G, C]` (in eval mode the scores, see `_peaks`) and kernels `[B, G, E]`.

        features: the five levels of the pyramid, finest first.
        """
        finest, *middle, coarsest = features
        # Two levels are resampled to their neighbour's size before the grids are laid over them.
        levels = [
            F.avg_pool2d(finest, 2),
            *middle,
            resize_bilinear(coarsest, (size_of(features[3], 2), size_of(features[3], 3))),
        ]
        cates, kernels = [], []
        for i, grid in enumerate(self.grids):
            kernel = resize_bilinear(with_coordinates(levels[i]), (grid, grid))
            cate = kernel[:, :-2]
            for layer in self.bbox_head.kernel_convs:
                kernel = layer(kernel)
            for layer in self.bbox_head.cate_convs:
                cate = layer(cate)
            cate = self.solo_cate(cate)
            cates.append(cate if self.training else _peaks(F.sigmoid(cate)))
            kernels.append(self.solo_kernel(kernel))
        return _cells_in_a_row(cates), _cells_in_a_row(kernels)


class MaskHead(nn.Layer):
    """The first four levels of the pyramid, each brought to the finest one's size and added up: `[B, E, mh, mw]`."""

    def __init__(self, *, in_channels: int, channels: int, out_channels: int) -> None:
        super().__init__()
        for level in range(4):
            # A convolution before each doubling; the coarsest level knows where it is.
            inputs = [in_channels + 2 * (level == 3)] + [channels] * (level - 1)
            branch = nn.Sequential(
                *(
                    (f"mask_feat_head.convs_all_levels.{level}.conv{i}", ConvNorm(in_channels=n, out_channels=channels))
                    for i, n in enumerate(inputs)
                )
            )
            self.add_sublayer(f"conv_pre_feat{level}", branch)
        last = ConvNorm(in_channels=channels, out_channels=out_channels, kernel=1)
        self.add_sublayer("mask_feat_head.conv_pred.0", last)
        self.conv_pred = last

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        total = self.conv_pre_feat0(features[0])
        for level in (1, 2, 3):
            x = with_coordinates(features[3]) if level == 3 else features[level]
            for layer in getattr(self, f"conv_pre_feat{level}"):
                x = layer(x)
                x = resize_bilinear(x, (2 * size_of(x, 2), 2 * size_of(x, 3)))
            total = total + x
        return self.conv_pred(total)


def with_coordinates(x: Tensor) -> Tensor:
    """`[B, C, h, w]` -> `[B, C + 2, h, w]`: each pixel's x, then y, from -1 to 1 over the picture."""
    plane = paddle.zeros_like(x[:, :1])
    columns = plane + paddle.linspace(-1, 1, size_of(x, 3))
    rows = plane + paddle.linspace(-1, 1, size_of(x, 2)).unsqueeze(1)
    return paddle.concat([x, columns, rows], axis=1)


def select_masks(
    scores: Tensor,
    kernels: Tensor,
    mask_features: Tensor,
    *,
    least_areas: Tensor,
    detections: int,
    threshold: Tensor | None = None,
    survivors: int = 500,
    score_threshold: float = 0.1,
    final_threshold: float = 0.05,
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw the masks of all likely cells, and let those that overlap a better one of their class fade.

    Args:
        scores: `[B, G, C]`; kernels: `[B, G, E]`; mask_features: `[B, E, mh, mw]`.
        least_areas: `[G]`, what the area of a cell's mask has to exceed.
        survivors: masks of a picture, the best by score, that are compared with each other.
        threshold: see `SOLOv2.network`.

    Returns:
        scores `[B, K]`, labels `[B, K]` and sigmoid - 0.5 of the masks `[B, K, mh, mw]`.
    """
    _, cells, classes = scores.shape
    # As many masks as the fullest picture has candidates: in a trained model far fewer than there are cells.
    scores = scores.flatten(1)
    likely = (scores > score_threshold).astype("int64").sum(axis=1).max().clip(min=detections)
    score, index = scores.topk(min(cells * classes, max(cells, detections)))
    score, index = score[:, :likely], index[:, :likely]
    cell = index // classes

    mask = F.sigmoid(paddle.bmm(take(kernels, cell), mask_features.flatten(2)))  # [B, likely, mh * mw]
    inside = (mask > 0.5).astype(mask.dtype)
    area = inside.sum(axis=2)
    valid = (score > score_threshold) & (area > least_areas.gather_nd(cell.unsqueeze(2)))
    # How sure a mask is of its own pixels counts as well.
    score = score * (mask * inside).sum(axis=2) / area.clip(min=1) * valid.astype(score.dtype)

    order = score.argsort(axis=1, descending=True, stable=True)[:, :survivors]
    score, label, mask = take(score, order), take(index % classes, order), take(mask, order)
    score = score * matrix_nms(masks=(mask > 0.5).astype(mask.dtype), valid=score > 0, labels=label)
    score = score * (score >= final_threshold).astype(score.dtype)
    score, order = score.topk(detections)
    score, order = leading(threshold, score, order)
    shape = [-1, size_of(score, 1), size_of(mask_features, 2), size_of(mask_features, 3)]
    return score, take(label, order), (take(mask, order) - 0.5).reshape(shape)


def matrix_nms(*, masks: Tensor, valid: Tensor, labels: Tensor, sigma: float = 2.0) -> Tensor:
    """Factor 0-1 by which each score is to be lowered, `[B, N]`; all at once, not one after the other.

    An instance fades as it overlaps better ones of its class, the less so the more those are overlapped themselves.

    Args:
        masks: `[B, N, S]`, 0 or 1, best first; labels: `[B, N]`; valid: bool `[B, N]`, those that take part.
    """
    overlap = paddle.bmm(masks, masks.transpose([0, 2, 1]))
    area = masks.sum(axis=2)
    iou = overlap / (area.unsqueeze(2) + area.unsqueeze(1) - overlap).clip(min=1)
    rival = (labels.unsqueeze(2) == labels.unsqueeze(1)) & valid.unsqueeze(2)
    iou = (iou * rival.astype(iou.dtype)).triu(1)  # [B, better, worse]
    hidden = iou.max(axis=1).unsqueeze(2)
    return paddle.exp(-sigma * (iou * iou - hidden * hidden).max(axis=1))


def boxes_around(logits: Tensor) -> Tensor:
    """`[B, K, mh, mw]`, positive inside -> `[B, K, 4]`, x1 y1 x2 y2 in pixels of the network input.

    These are the boxes around the masks enlarged to the input, without enlarging them: their outline against each axis
    is enlarged instead. Nothing inside: zeros.
    """
    left, right = _span(_outline(logits.transpose([0, 1, 3, 2])))
    top, bottom = _span(_outline(logits))
    return paddle.stack([left, top, right, bottom], axis=2)


def _outline(x: Tensor) -> Tensor:
    """The greatest value in each row of `[B, K, r, c]` after enlarging, `[B, K, r]`."""
    before = paddle.concat([x[..., :1], x[..., :-1]], axis=3)
    after = paddle.concat([x[..., 1:], x[..., -1:]], axis=3)
    # The samples nearest to a pixel's centre lie an eighth of a pixel beside it.
    beside = 1 / (2 * MASK_STRIDE)
    return ((1 - beside) * x + beside * paddle.maximum(before, after)).max(axis=3)


def _span(outline: Tensor) -> tuple[Tensor, Tensor]:
    """Where what is positive in `[B, K, r]`, enlarged, begins and ends: `[B, K]` each."""
    length = MASK_STRIDE * size_of(outline, 2)
    inside = resize_bilinear(outline.unsqueeze(2), (1, length)).squeeze(2) > 0
    start = paddle.arange(0, length, 1, dtype="int32").astype(outline.dtype)
    end = paddle.where(inside, start + 1, paddle.zeros([])).max(axis=2)
    return paddle.minimum(paddle.where(inside, start, paddle.full([], 1e9)).min(axis=2), end), end


def _peaks(scores: Tensor) -> Tensor:
    """Scores `[B, C, g, g]`, with 0 where the neighbour above, to the left or between has a higher one."""
    highest = F.max_pool2d(scores, 2, stride=1, padding=1)[:, :, :-1, :-1]
    return scores * (scores == highest).astype(scores.dtype)


def _cells_in_a_row(maps: Sequence[Tensor]) -> Tensor:
    """Maps `[B, c, g, g]`, one a grid -> `[B, G, c]`."""
    return paddle.concat([x.flatten(2) for x in maps], axis=2).transpose([0, 2, 1])
