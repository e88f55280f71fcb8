"""Dice loss: one minus the overlap of two masks (Milletari et al. 2016, arXiv:1606.04797)."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import paddle
from numpy.typing import NDArray
from paddle import Tensor

Values = TypeVar("Values", Tensor, NDArray[np.float32])


def dice_loss(probabilities: Tensor, targets: Tensor) -> Tensor:
    """Loss `[...]` of masks `[..., P]` against targets of the same shape, both 0 to 1."""
    return dice((probabilities * targets).sum(-1), probabilities.sum(-1) + targets.sum(-1))


def dice_cost(probabilities: Tensor, targets: Tensor) -> Tensor:
    """Loss `[L, Q, n]` of every mask `[L, Q, P]` against every target `[L, n, P]`."""
    overlap = paddle.matmul(probabilities, targets, transpose_y=True)
    return dice(overlap, probabilities.sum(-1).unsqueeze(-1) + targets.sum(-1).unsqueeze(-2))


def dice(overlap: Values, total: Values) -> Values:
    """Loss of masks that share so much, and hold so much together."""
    # Plus one on both sides: two empty masks agree.
    return 1 - (2 * overlap + 1) / (total + 1)
