"""Intersection over union of boxes, `x1 y1 x2 y2` throughout."""

from __future__ import annotations

import paddle
from paddle import Tensor

EPSILON = 1e-9


def area(boxes: Tensor) -> Tensor:
    """Areas `[...]` of `boxes` `[..., 4]`; a box turned inside out has none."""
    sides = (boxes[..., 2:] - boxes[..., :2]).clip(min=0)
    return sides[..., 0] * sides[..., 1]


def iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU `[...]` of boxes that broadcast against each other, `[..., 4]`."""
    return _iou_and_union(a, b)[0]


def pairwise_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU `[..., n, m]` of every box in `a` `[..., n, 4]` with every box in `b` `[..., m, 4]`."""
    return iou(a.unsqueeze(-2), b.unsqueeze(-3))


def giou(a: Tensor, b: Tensor) -> Tensor:
    """Generalised IoU `[...]`, -1 to 1, of boxes that broadcast against each other (Rezatofighi et al. 2019)."""
    overlap, union = _iou_and_union(a, b)
    hull = area(
        paddle.concat([paddle.minimum(a[..., :2], b[..., :2]), paddle.maximum(a[..., 2:], b[..., 2:])], axis=-1)
    )
    return overlap - (hull - union) / (hull + EPSILON)


def _iou_and_union(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    sides = (paddle.minimum(a[..., 2:], b[..., 2:]) - paddle.maximum(a[..., :2], b[..., :2])).clip(min=0)
    intersection = sides[..., 0] * sides[..., 1]
    union = area(a) + area(b) - intersection
    return intersection / (union + EPSILON), union
