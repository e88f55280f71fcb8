"""Region proposal network (Ren et al. 2015): where in a picture objects may be.

At each position of the feature maps lie anchors, boxes of several sizes and shapes. The network scores each anchor and
predicts how to change it into the box of an object.

Legend: B pictures, L levels (feature maps), A anchors of all levels, K proposals.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import paddle
import paddle.nn.functional as F
from paddle import ParamAttr, Tensor, nn
from paddle.nn.initializer import Normal

from toolkit.nn.boxes import clip, decode, encode
from toolkit.nn.nms import select
from toolkit.nn.sampling import Objects, match, sample
from toolkit.nn.shape import size_of, take

RATIOS = (0.5, 1.0, 2.0)
"""Height to width of the anchors of each size."""

OVERLAP = 0.7
"""Proposals that overlap a better one of their level by more are dropped."""

UNIT = (1.0, 1.0, 1.0, 1.0)


class Scored(NamedTuple):
    """What the network says of the anchors of one level, from left to right, then from top to bottom."""

    logits: Tensor
    """`[B, a]`."""
    deltas: Tensor
    """`[B, a, 4]`, see `toolkit.nn.boxes`."""
    anchors: Tensor
    """`[a, 4]`, x1 y1 x2 y2 in pixels of the network input."""


class RPN(nn.Layer):
    """One small network over all levels.

    Args:
        strides: of the levels, in pixels of the network input.
        sizes: of each level's anchors, square root of the area.
        sampling: `random`, or `first` for the anchors with the lowest index.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        strides: Sequence[int] = (4, 8, 16, 32, 64),
        sizes: Sequence[Sequence[int]] = ((32,), (64,), (128,), (256,), (512,)),
        sampling: str = "random",
    ) -> None:
        super().__init__()
        shapes = len(sizes[0]) * len(RATIOS)
        attr = ParamAttr(initializer=Normal(std=0.01))
        self.rpn_feat = nn.Layer()
        self.rpn_feat.rpn_conv = nn.Conv2D(in_channels, in_channels, 3, padding=1, weight_attr=attr)
        self.rpn_rois_score = nn.Conv2D(in_channels, shapes, 1, weight_attr=attr)
        self.rpn_rois_delta = nn.Conv2D(in_channels, 4 * shapes, 1, weight_attr=attr)
        self.strides = tuple(strides)
        self.sizes = tuple(sizes)
        self.sampling = sampling

    def forward(self, features: Sequence[Tensor]) -> list[Scored]:
        levels = []
        for x, stride, sizes in zip(features, self.strides, self.sizes, strict=True):
            x = F.relu(self.rpn_feat.rpn_conv(x))
            logits = self.rpn_rois_score(x).transpose([0, 2, 3, 1]).flatten(1)
            deltas = self.rpn_rois_delta(x).transpose([0, 2, 3, 1]).reshape([0, -1, 4])
            levels.append(Scored(logits, deltas, _anchors(x, stride=stride, sizes=sizes)))
        return levels

    def losses(self, levels: Sequence[Scored], objects: Objects) -> dict[str, Tensor]:
        """Anchors learn from the objects they overlap; 256 a picture, up to half of them on objects."""
        anchors = paddle.concat([level.anchors for level in levels]).unsqueeze(0)
        with paddle.no_grad():
            matched = match(anchors, objects)
            positive = (matched.overlap >= 0.7) | matched.closest
            negative = (matched.overlap < 0.3) & ~positive
            chosen = sample(positive, negative, count=256, most_positive=128, how=self.sampling)
            boxes = anchors[0][chosen.index]
            goals = encode(take(objects.boxes, take(matched.index, chosen.index)), boxes, weights=UNIT)
        logits = take(paddle.concat([level.logits for level in levels], axis=1), chosen.index)
        deltas = take(paddle.concat([level.deltas for level in levels], axis=1), chosen.index)
        used, on_object = chosen.used.astype(logits.dtype), chosen.positive.astype(logits.dtype)
        wrong = F.binary_cross_entropy_with_logits(logits, on_object, weight=used, reduction="sum")
        distance = ((deltas - goals).abs().sum(axis=2) * on_object).sum()
        count = 256 * len(logits)
        return {"loss_rpn_cls": wrong / count, "loss_rpn_reg": distance / count}

    @paddle.no_grad()
    def propose(
        self, levels: Sequence[Scored], im_shape: Tensor, *, candidates: int, keep: int
    ) -> tuple[Tensor, Tensor]:
        """The most likely boxes of each picture that do not overlap too much.

        Args:
            im_shape: `[B, 2]`, height and width of the pictures inside the padded input; boxes are cut to them.
            candidates: anchors of each level, the best, that take part; keep: K.

        Returns boxes `[B, K, 4]` and scores `[B, K]`, best first; unused rows score 0.
        """
        scores, boxes = [], []
        for level in levels:
            # Filled up, so that levels with fewer anchors have as many rows as the others.
            logits, index = paddle.topk(F.pad(level.logits, [0, 0, 0, candidates], value=-1e4), candidates)
            index = paddle.minimum(index, paddle.to_tensor(size_of(level.anchors, 0), "int64") - 1)
            boxes.append(decode(take(level.deltas, index), level.anchors[index], weights=UNIT))
            scores.append(F.sigmoid(logits))
        box = clip(paddle.concat(boxes, axis=1), im_shape)  # [B, L * candidates, 4]
        large = ((box[..., 2:] - box[..., :2]).min(axis=-1) >= 1).astype(box.dtype)
        score = paddle.concat(scores, axis=1) * large
        # Levels as classes: only boxes of one level suppress each other.
        level_of = paddle.eye(len(levels)).repeat_interleave(candidates, axis=1)  # [L, L * candidates]
        best = select(box, score.unsqueeze(1) * level_of, keep=keep, threshold=0.0, iou=OVERLAP, candidates=candidates)
        return take(box, best.index), best.scores


def _anchors(x: Tensor, *, stride: int, sizes: Sequence[int]) -> Tensor:
    """`[a, 4]` around the top left corners of the cells of `x` `[B, C, h, w]`."""
    ratios = paddle.to_tensor(RATIOS)
    widths = (paddle.to_tensor(sizes, "float32").unsqueeze(1) / ratios.sqrt()).flatten()
    heights = (paddle.to_tensor(sizes, "float32").unsqueeze(1) * ratios.sqrt()).flatten()
    half = paddle.stack([widths, heights], axis=1) / 2
    rows = paddle.arange(0, size_of(x, 2), 1, dtype="int32").astype("float32") * stride
    columns = paddle.arange(0, size_of(x, 3), 1, dtype="int32").astype("float32") * stride
    y, x_ = paddle.meshgrid(rows, columns)
    corner = paddle.stack([x_, y], axis=2).unsqueeze(2)  # [h, w, 1, 2]
    return paddle.concat([corner - half, corner + half], axis=3).reshape([-1, 4])
