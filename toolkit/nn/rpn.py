"""Region proposal network (Ren et al. 2015): where in a picture objects may be.

At each position of the feature maps lie anchors, boxes of several sizes and shapes. The network scores each anchor and
predicts how to change it into the box of an object.

Legend: B pictures, L levels (feature maps), a anchors of a level, n anchors of all levels, K proposals.
"""

from __future__ import annotations

from collections.abc import Sequence

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

    @paddle.no_grad()
    def forward(
        self, features: Sequence[Tensor], im_shape: Tensor, *, candidates: int, keep: int
    ) -> tuple[Tensor, Tensor]:
        """The most likely boxes of each picture that do not overlap too much.

        Args:
            im_shape: `[B, 2]`, height and width of the pictures inside the padded input; boxes are cut to them.
            candidates: anchors of each level, the best, that take part; keep: K.

        Returns boxes `[B, K, 4]`, x1 y1 x2 y2 in pixels of the network input, and scores `[B, K]`, best first; unused
        rows score 0.
        """
        scores, boxes = [], []
        for x, anchors in zip(features, self._anchors(features), strict=True):
            x = F.relu(self.rpn_feat.rpn_conv(x))
            logits = self.rpn_rois_score(x).transpose([0, 2, 3, 1]).flatten(1)
            deltas = self.rpn_rois_delta(x).transpose([0, 2, 3, 1]).reshape([0, -1, 4])
            # Filled up, so that levels with fewer anchors have as many rows as the others; not by oneDNN's pad, which
            # writes beyond its memory.
            filling = paddle.full_like(logits[:, :1], -1e4).expand([-1, candidates])
            logits, index = paddle.topk(paddle.concat([logits, filling], axis=1), candidates)
            index = paddle.minimum(index, paddle.to_tensor(size_of(anchors, 0), "int64") - 1)
            boxes.append(decode(take(deltas, index), anchors[index], weights=UNIT))
            # Not the operator: ONNX Runtime's has no probabilities below 3e-8, and what it makes 0 is no proposal.
            scores.append((1.0 + (-logits).exp()).reciprocal())
        box = clip(paddle.concat(boxes, axis=1), im_shape)  # [B, L * candidates, 4]
        large = ((box[..., 2:] - box[..., :2]).min(axis=-1) >= 1).astype(box.dtype)
        score = paddle.concat(scores, axis=1) * large
        # Levels as classes: only boxes of one level suppress each other.
        level = paddle.eye(len(features)).repeat_interleave(candidates, axis=1)  # [L, L * candidates]
        best = select(box, score.unsqueeze(1) * level, keep=keep, threshold=0.0, iou=OVERLAP, candidates=candidates)
        return take(box, best.index), best.scores

    def losses(self, features: Sequence[Tensor], objects: Objects) -> dict[str, Tensor]:
        """Anchors learn from the objects they overlap; 256 a picture, up to half of them on objects."""
        anchors = paddle.concat(self._anchors(features))
        matched = match(anchors.unsqueeze(0), objects)
        positive = (matched.overlap >= 0.7) | matched.closest
        negative = (matched.overlap < 0.3) & ~positive
        chosen = sample(positive, negative, count=256, most_positive=128, how=self.sampling)
        goals = take(objects.boxes, take(matched.index, chosen.index))
        goals = encode(goals, anchors[chosen.index], weights=UNIT)
        logits, deltas = self._at(features, chosen.index)
        used, on_object = chosen.used.astype(logits.dtype), chosen.positive.astype(logits.dtype)
        wrong = F.binary_cross_entropy_with_logits(logits, on_object, weight=used, reduction="sum")
        distance = ((deltas - goals).abs().sum(axis=2) * on_object).sum()
        count = 256 * len(logits)
        return {"loss_rpn_cls": wrong / count, "loss_rpn_reg": distance / count}

    def _at(self, features: Sequence[Tensor], index: Tensor) -> tuple[Tensor, Tensor]:
        """Logits `[B, n]` and deltas `[B, n, 4]` of the anchors `index` `[B, n]` alone.

        The same as `forward` computes for all of them, of which the loss has no use for more than one in a hundred:
        their share of a training step would be a tenth.
        """
        shapes = len(self.sizes[0]) * len(RATIOS)
        heights, widths = (paddle.to_tensor([x.shape[i] for x in features]) for i in (2, 3))
        ends = (heights * widths).cumsum()
        cell, shape = index // shapes, index % shapes  # [B, n]
        level = paddle.searchsorted(ends, cell, right=True)
        height, width, start = heights[level], widths[level], (ends - heights * widths)[level]
        # The 3 x 3 cells around each: [B, 9, n].
        around = paddle.arange(9).reshape([1, 9, 1])
        y = ((cell - start) // width).unsqueeze(1) + around // 3 - 1
        x = ((cell - start) % width).unsqueeze(1) + around % 3 - 1
        inside = (y >= 0) & (y < height.unsqueeze(1)) & (x >= 0) & (x < width.unsqueeze(1))
        place = paddle.where(inside, start.unsqueeze(1) + y * width.unsqueeze(1) + x, paddle.zeros_like(y))
        flat = paddle.concat([feature.flatten(2) for feature in features], axis=2)  # [B, channels, cells]
        patches = paddle.take_along_axis(flat, place.flatten(1).unsqueeze(1).expand([-1, flat.shape[1], -1]), axis=2)
        patches = patches * inside.flatten(1).unsqueeze(1).astype(patches.dtype)
        hidden = F.relu(_convolve(self.rpn_feat.rpn_conv, patches.reshape([0, -1, index.shape[1]])))
        logits = paddle.take_along_axis(_convolve(self.rpn_rois_score, hidden), shape.unsqueeze(1), axis=1)
        part = shape.unsqueeze(1) * 4 + paddle.arange(4).reshape([1, 4, 1])
        deltas = paddle.take_along_axis(_convolve(self.rpn_rois_delta, hidden), part, axis=1)
        return logits.squeeze(1), deltas.transpose([0, 2, 1])

    def _anchors(self, features: Sequence[Tensor]) -> list[Tensor]:
        """`[a, 4]` of each level, x1 y1 x2 y2: cell after cell, around their top left corners."""
        return [
            _anchors(x, stride=stride, sizes=sizes)
            for x, stride, sizes in zip(features, self.strides, self.sizes, strict=True)
        ]


def _convolve(conv: nn.Conv2D, patches: Tensor) -> Tensor:
    """`[B, channels * kernel area, n]` -> `[B, out channels, n]`."""
    return paddle.matmul(conv.weight.flatten(1), patches) + conv.bias.unsqueeze(1)


def _anchors(x: Tensor, *, stride: int, sizes: Sequence[int]) -> Tensor:
    ratios = paddle.to_tensor(RATIOS)
    widths = (paddle.to_tensor(sizes, "float32").unsqueeze(1) / ratios.sqrt()).flatten()
    heights = (paddle.to_tensor(sizes, "float32").unsqueeze(1) * ratios.sqrt()).flatten()
    half = paddle.stack([widths, heights], axis=1) / 2
    rows = paddle.arange(0, size_of(x, 2), 1, dtype="int32").astype("float32") * stride
    columns = paddle.arange(0, size_of(x, 3), 1, dtype="int32").astype("float32") * stride
    y, x_ = paddle.meshgrid(rows, columns)
    corner = paddle.stack([x_, y, x_, y], axis=2).reshape([-1, 1, 4])
    # Expanded by hand: oneDNN fails where a level of one cell is the smaller operand.
    return (corner.expand([-1, half.shape[0], 4]) + paddle.concat([-half, half], axis=1)).reshape([-1, 4])
