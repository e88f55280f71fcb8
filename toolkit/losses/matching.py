"""Which query answers for which object: an assignment of least cost (DETR, Carion et al. 2020, arXiv:2005.12872)."""

from __future__ import annotations

import numpy as np
import paddle
import paddle.nn.functional as F
from numpy.typing import NDArray
from paddle import Tensor
from scipy.optimize import linear_sum_assignment

from toolkit.losses.dice import dice_cost


def hungarian(costs: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Assignments of least total cost, one for each of the L matrices in `costs` `[L, Q, n]`.

    Returns queries and objects, `[L, min(Q, n)]` each, in order of the queries. Costs that are not finite, as a
    diverging network gives, count as the worst.
    """
    costs = np.nan_to_num(costs, nan=1e6, posinf=1e6, neginf=-1e6)
    pairs = np.array([linear_sum_assignment(cost) for cost in costs], dtype=np.int64)  # [L, 2, min(Q, n)]
    return pairs[:, 0], pairs[:, 1]


def mask_costs(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Cross entropy and dice loss, `[L, Q, n]` each, of every mask `[L, Q, P]` against every target `[n, P]` (0 to 1).

    Masks are given by their values at P points that all share.
    """
    each = targets.unsqueeze(0).expand([logits.shape[0], -1, -1])
    # Cross entropy is linear in the target: two products do for what would be a tensor [L, Q, n, P].
    one = F.softplus(-logits)
    zero = one + logits
    entropy = paddle.matmul(one, each, transpose_y=True) + paddle.matmul(zero, 1 - each, transpose_y=True)
    return entropy / logits.shape[-1], dice_cost(F.sigmoid(logits), each)
