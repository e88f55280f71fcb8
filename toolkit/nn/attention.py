"""Attention: among tokens, and from queries to points of a feature pyramid."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

# B pictures, T tokens, Q queries, D width, H heads, L levels, P points a head and level


class SelfAttention(nn.Layer):
    """Multi-head attention among tokens (Vaswani et al. 2017)."""

    def __init__(self, dim: int, *, heads: int) -> None:
        super().__init__()
        self.heads = heads
        xavier = nn.initializer.XavierUniform()
        self.in_proj_weight = self.create_parameter([dim, 3 * dim], default_initializer=xavier)
        self.in_proj_bias = self.create_parameter([3 * dim], is_bias=True)
        self.out_proj = nn.Linear(dim, dim, weight_attr=xavier)

    def forward(self, x: Tensor, *, position: Tensor, mask: Tensor | None = None) -> Tensor:
        """`x` `[B, T, D]`; `position`, added to what queries and keys are made of; `mask` `[T, T]`, added to
        the attention's logits."""
        placed = x + position
        if self.training:
            parts = zip(
                (placed, placed, x), self.in_proj_weight.chunk(3, axis=1), self.in_proj_bias.chunk(3), strict=True
            )
            query, key, value = (self._split(F.linear(*part)) for part in parts)
        else:
            # The whole weight, though a part of each product goes unused: oneDNN multiplies by noise where the weight
            # is a part of a parameter.
            whole = (
                F.linear(source, self.in_proj_weight, self.in_proj_bias).chunk(3, axis=-1) for source in (placed, x)
            )
            (query, key, _), (*_, value) = ([self._split(part) for part in parts] for parts in whole)
        logits = paddle.matmul(query, key, transpose_y=True) * (self._dim // self.heads) ** -0.5  # [B, H, T, T]
        if mask is not None:
            logits = logits + mask
        mixed = paddle.matmul(F.softmax(logits), value)  # [B, H, T, D / H]
        return self.out_proj(mixed.transpose([0, 2, 1, 3]).flatten(2))

    @property
    def _dim(self) -> int:
        return int(self.in_proj_weight.shape[0])

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape([0, 0, self.heads, self._dim // self.heads]).transpose([0, 2, 1, 3])


class DeformableAttention(nn.Layer):
    """Each query looks at a few points around its reference box, at places it chooses (Zhu et al. 2021)."""

    def __init__(self, dim: int, *, heads: int, levels: int, points: int) -> None:
        super().__init__()
        self.heads, self.levels, self.points = heads, levels, points
        zero = nn.initializer.Constant(0.0)
        xavier = nn.initializer.XavierUniform()
        star = nn.initializer.Assign(_star(heads, levels, points))
        self.sampling_offsets = nn.Linear(dim, heads * levels * points * 2, weight_attr=zero, bias_attr=star)
        self.attention_weights = nn.Linear(dim, heads * levels * points, weight_attr=zero)
        self.value_proj = nn.Linear(dim, dim, weight_attr=xavier)
        self.output_proj = nn.Linear(dim, dim, weight_attr=xavier)

    def values(self, memory: Tensor, sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
        """What queries look at, L maps `[B, D, h, w]`, from `memory` `[B, T, D]`, the levels' pixels in a row, whose
        heights and widths are `sizes`; for `forward`."""
        value = self.value_proj(memory).transpose([0, 2, 1])
        pixels = value.split([height * width for height, width in sizes], axis=-1)
        return [level.reshape([0, 0, *size]) for level, size in zip(pixels, sizes, strict=True)]

    def forward(self, query: Tensor, *, boxes: Tensor, values: Sequence[Tensor]) -> Tensor:
        """`query` `[B, Q, D]`; `boxes` `[B, Q, 4]`, centre and size relative to the picture; `values`, L maps
        `[B, D, h, w]`."""
        queries, dim = query.shape[1:]
        heads, levels, points = self.heads, self.levels, self.points

        offsets = self.sampling_offsets(query).reshape([-1, queries, heads * levels * points, 2])
        centre, side = boxes.unsqueeze(2).chunk(2, axis=-1)
        places = centre + offsets * side * (0.5 / points)  # [B, Q, HLP, 2], 0-1
        grid = (2 * places - 1).reshape([-1, queries, heads, levels, points, 2])
        grid = grid.transpose([0, 2, 3, 1, 4, 5]).reshape([-1, levels, queries, points, 2])  # [BH, L, Q, P, 2]

        weights = F.softmax(self.attention_weights(query).reshape([-1, queries, heads, levels * points]))
        weights = weights.transpose([0, 2, 1, 3]).reshape([-1, 1, queries, levels * points])  # [BH, 1, Q, LP]

        points_axis = 3
        if not self.training:
            # What follows runs faster along hundreds of queries than along a dozen points; but gradients that add up in
            # another order leave the golden figures.
            grid, weights, points_axis = grid.transpose([0, 1, 3, 2, 4]), weights.transpose([0, 1, 3, 2]), 2
        seen = [
            F.grid_sample(level.reshape([-1, dim // heads, *level.shape[2:]]), grid[:, index], align_corners=False)
            for index, level in enumerate(values)
        ]  # L x [BH, D / H, Q, P], or [BH, D / H, P, Q]
        mixed = (paddle.concat(seen, axis=points_axis) * weights).sum(points_axis)  # [BH, D / H, Q]
        return self.output_proj(mixed.reshape([-1, dim, queries]).transpose([0, 2, 1]))


def pixelwise(linear: nn.Linear, maps: Sequence[Tensor], *, bias: bool = True) -> list[Tensor]:
    """A linear layer of every pixel of the L `maps` `[B, D, h, w]`, for use without gradients: convolutions, whose
    outcome needs no transposing."""
    weight = linear.weight.t().unsqueeze([2, 3])
    return [F.conv2d(level, weight, linear.bias if bias else None) for level in maps]


def _star(heads: int, levels: int, points: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """Offsets to begin with: each head looks in its own direction, its points one step further each."""
    angle = np.arange(heads) * (2 * math.pi / heads)
    direction = np.stack([np.cos(angle), np.sin(angle)], -1)
    direction /= np.abs(direction).max(-1, keepdims=True)
    steps = np.arange(1, points + 1)[:, None]
    star = np.broadcast_to(direction[:, None, None] * steps, (heads, levels, points, 2))
    return star.reshape(-1).astype("float32")
