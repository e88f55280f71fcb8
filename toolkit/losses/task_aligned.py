"""Task-aligned assignment: which predictions learn which object (TOOD, Feng et al. 2021, arXiv:2108.07755)."""

from __future__ import annotations

from typing import NamedTuple

import paddle
import paddle.nn.functional as F
from paddle import Tensor

from toolkit.losses.iou import pairwise_iou

EPSILON = 1e-9


class Assignment(NamedTuple):
    """For every prediction (A of them a picture) the object it learns."""

    positive: Tensor
    """bool `[B, A]`: whether it learns one at all."""
    owner: Tensor
    """int64 `[B, A]`: that object's index in its picture; 0 where there is none."""
    quality: Tensor
    """`[B, A]`: the class score to predict, at most the IoU of the object's best prediction; 0 where there is none."""


@paddle.no_grad()
def assign(
    scores: Tensor,
    boxes: Tensor,
    points: Tensor,
    gt_class: Tensor,
    gt_bbox: Tensor,
    gt_exists: Tensor,
    *,
    candidates: int = 13,
    alpha: float = 1.0,
    beta: float = 6.0,
) -> Assignment:
    """Give each object its best aligned predictions, `score ** alpha * iou ** beta`, among those centred inside it.

    Args:
        scores: `[B, A, C]`, 0 to 1; boxes: `[B, A, 4]`, predicted; points: `[A, 2]`, x y, the centres they come from.
        gt_class: int64 `[B, n]`; gt_bbox: `[B, n, 4]`, in the units of `boxes` and `points`; n at least 1.
        gt_exists: bool `[B, n]`, False for rows that only fill up a picture with fewer objects.
        candidates: how many predictions an object gets at most.
    """
    ious = pairwise_iou(gt_bbox, boxes) * gt_exists.unsqueeze(-1).astype(boxes.dtype)  # [B, n, A]
    class_scores = paddle.take_along_axis(scores.transpose([0, 2, 1]), gt_class.unsqueeze(-1), axis=1)
    alignment = class_scores.pow(alpha) * ious.pow(beta)
    inside = (_inside(points, gt_bbox) & gt_exists.unsqueeze(-1)).astype(boxes.dtype)

    _, best = paddle.topk(alignment * inside, min(candidates, alignment.shape[-1]), axis=-1)
    chosen = paddle.put_along_axis(paddle.zeros_like(alignment), best, 1.0, axis=-1) * inside

    # A prediction that several objects want goes to the one it overlaps most.
    wanted = chosen.sum(axis=1)  # [B, A]
    owner = paddle.where(wanted > 1, ious.argmax(axis=1), chosen.argmax(axis=1))
    positive = wanted > 0

    owned = F.one_hot(owner, gt_bbox.shape[1]).transpose([0, 2, 1]) * positive.astype(ious.dtype).unsqueeze(1)
    alignment = alignment * owned
    best_alignment = alignment.max(axis=-1, keepdim=True)
    best_iou = (ious * owned).max(axis=-1, keepdim=True)
    quality = (alignment / (best_alignment + EPSILON) * best_iou).max(axis=1)
    return Assignment(positive, owner, quality)


def _inside(points: Tensor, boxes: Tensor) -> Tensor:
    """bool `[B, n, A]`: whether each of `points` `[A, 2]` lies strictly inside each of `boxes` `[B, n, 4]`."""
    low, high = (corner.unsqueeze(2) for corner in boxes.split(2, axis=-1))
    return paddle.concat([points - low, high - points], axis=-1).min(axis=-1) > EPSILON
