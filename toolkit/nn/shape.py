"""Sizes and rows of tensors whose batch, height or width a traced graph may leave open."""

from __future__ import annotations

from typing import TypeAlias

import paddle
from paddle import Tensor

Size: TypeAlias = "int | Tensor"
"""A number of pixels or rows: an int, or an integer tensor of one element where only the running graph knows it."""


def size_of(x: Tensor, axis: int) -> Size:
    """Length of `axis`: an int wherever it is known."""
    length = x.shape[axis]
    return length if isinstance(length, int) and length >= 0 else paddle.shape(x)[axis]


def leading(threshold: Tensor | None, scores: Tensor, *others: Tensor) -> list[Tensor]:
    """Of `scores` `[B, K]`, best first, and `others` `[B, K, ...]`, the rows up to the last that reaches `threshold`
    `[1]` in some picture, but at least one; without a threshold all."""
    parts = [scores, *others]
    if threshold is None:
        return parts
    count = (scores >= threshold).astype("int32").sum(axis=1).max().clip(min=1)
    return [part[:, :count] for part in parts]


def take(x: Tensor, index: Tensor) -> Tensor:
    """Rows `index` `[B, K]` of each picture's part of `x` `[B, N, ...]`: `[B, K, ...]`."""
    picture = paddle.arange(0, size_of(x, 0), 1, dtype="int64").unsqueeze(1) + paddle.zeros_like(index)
    return paddle.gather_nd(x, paddle.stack([picture, index], axis=2))
