"""Masks compared at sampled points instead of everywhere (PointRend, Kirillov et al. 2020, arXiv:1912.08193)."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import Tensor

# N objects, C predictions for each, P points


def sample(maps: Tensor, points: Tensor) -> Tensor:
    """Values `[N, C, P]` of `maps` `[N, C, h, w]` at `points` `[N, P, 2]` (x, y, 0 to 1 over the whole map), bilinear,
    zero outside."""
    return F.grid_sample(maps, 2 * points.unsqueeze(1) - 1, align_corners=False).squeeze(2)


@paddle.no_grad()
def uncertain_points(logits: Tensor, *, count: int, oversampling: float = 3.0, uncertain: float = 0.75) -> Tensor:
    """Points `[N, C, count, 2]` for masks `logits` `[N, C, h, w]`.

    Of `oversampling` times `count` random points, those where a mask is nearest to undecided fill the share
    `uncertain`, the rest is random. The random points are drawn for each object, and are common to its C predictions.
    """
    objects, predictions = logits.shape[:2]
    candidates = paddle.rand([objects, int(count * oversampling), 2])
    chosen = int(count * uncertain)
    doubt = -sample(logits, candidates).abs()
    index = doubt.topk(chosen, axis=-1)[1]  # [N, C, chosen]
    start = paddle.arange(objects).reshape([-1, 1, 1]) * candidates.shape[1]
    picked = candidates.reshape([-1, 2]).gather((index + start).flatten())
    rest = paddle.rand([objects, count - chosen, 2]).unsqueeze(1).expand([-1, predictions, -1, -1])
    return paddle.concat([picked.reshape([objects, predictions, chosen, 2]), rest], axis=2)
