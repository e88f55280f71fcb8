"""Boxes as R-CNNs predict them: as a change of a box that is already there (Girshick et al. 2014)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import paddle
from paddle import Tensor

LARGEST = math.log(1000 / 16)
"""Logarithm of the factor by which a box can grow at most."""

LEAST_SIDE = 1e-3
"""Pixels; a box without area would change by an infinite factor."""


def encode(targets: Tensor, boxes: Tensor, *, weights: Sequence[float]) -> Tensor:
    """What turns `boxes` into `targets`, both `[..., 4]`, x1 y1 x2 y2.

    Centre's shift in terms of the box's sides and logarithm of the sides' growth, x y w h, multiplied by `weights`.
    """
    centre, sides = _centre_and_sides(boxes)
    target_centre, target_sides = _centre_and_sides(targets)
    deltas = paddle.concat([(target_centre - centre) / sides, paddle.log(target_sides / sides)], axis=-1)
    return deltas * paddle.to_tensor(weights, deltas.dtype)


def decode(deltas: Tensor, boxes: Tensor, *, weights: Sequence[float]) -> Tensor:
    """Boxes `[..., 4]` changed by `deltas`, the reverse of `encode`."""
    deltas = deltas / paddle.to_tensor(weights, deltas.dtype)
    centre = (boxes[..., :2] + boxes[..., 2:]) / 2
    sides = boxes[..., 2:] - boxes[..., :2]
    centre = centre + deltas[..., :2] * sides
    half = paddle.exp(deltas[..., 2:].clip(max=LARGEST)) * sides / 2
    return paddle.concat([centre - half, centre + half], axis=-1)


def clip(boxes: Tensor, size: Tensor) -> Tensor:
    """`boxes` `[B, ..., 4]` cut at the edges of their pictures; `size` `[B, 2]`: height and width."""
    limit = size.flip([1]).tile([1, 2]).reshape([-1] + [1] * (boxes.ndim - 2) + [4])
    return paddle.minimum(boxes.clip(min=0.0), limit)


def _centre_and_sides(boxes: Tensor) -> tuple[Tensor, Tensor]:
    low, high = boxes[..., :2], boxes[..., 2:]
    return (low + high) / 2, (high - low).clip(min=LEAST_SIDE)
