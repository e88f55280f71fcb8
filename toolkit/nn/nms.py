"""Non-maximum suppression with an output of fixed size."""

from __future__ import annotations

from typing import NamedTuple

import paddle
from paddle import Tensor


class Selection(NamedTuple):
    """The best K pairs of prediction and class of each picture, best first; K is fixed, unused rows score 0."""

    scores: Tensor
    """`[B, K]`."""
    labels: Tensor
    """int64 `[B, K]`."""
    index: Tensor
    """int64 `[B, K]`: which of the A predictions."""


def select(boxes: Tensor, scores: Tensor, *, keep: int, threshold: float, iou: float, candidates: int) -> Selection:
    """Suppress, class by class, what overlaps a better prediction, and return the best of the rest.

    Args:
        boxes: `[B, A, 4]`, x1 y1 x2 y2; scores: `[B, C, A]`.
        keep: K, but never more than there are pairs.
        threshold: pairs must score more; iou: those that overlap a better one of their class by more are dropped.
        candidates: how many pairs of each class, the best, take part.
    """
    _, classes, predictions = scores.shape
    survivors, index, _ = paddle._C_ops.multiclass_nms3(
        boxes, scores, None, threshold, candidates, keep, iou, True, 1.0, -1
    )
    # Survivors come as a ragged list: [N, 6] with the class and the score in front, and the row in [B * A].
    # One row of score 0 more: oneDNN cannot take columns of an empty list.
    survivors = paddle.concat([survivors, paddle.zeros([1, 6], survivors.dtype)])
    index = paddle.concat([index.astype("int64"), paddle.zeros([1, 1], "int64")])
    label, score, row = survivors[:, 0].astype("int64"), survivors[:, 1], index[:, 0]
    picture, prediction = row // predictions, row % predictions
    # Not (picture * classes + label) * predictions: oneDNN fuses a product with the sum before it, and drops it.
    pair = picture * (classes * predictions) + label * predictions + prediction
    kept = paddle.scatter(paddle.zeros_like(scores).flatten(), pair, score, overwrite=False)
    best, place = paddle.topk(kept.reshape([-1, classes * predictions]), min(keep, classes * predictions), axis=1)
    return Selection(best, place // predictions, place % predictions)
