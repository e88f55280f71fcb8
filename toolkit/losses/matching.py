"""Which query answers for which object: an assignment of least cost (DETR, Carion et al. 2020, arXiv:2005.12872)."""

from __future__ import annotations

import numpy as np
import paddle
import paddle.nn.functional as F
from numpy.typing import NDArray
from paddle import Tensor
from scipy.optimize import linear_sum_assignment

from toolkit.losses.dice import dice, dice_cost
from toolkit.losses.points import entropy_and_sigmoid

AT_A_TIME = 256
"""Points."""


def hungarian(costs: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Assignments of least total cost, one for each of the L matrices in `costs` `[L, Q, n]`.

    Returns queries and objects, `[L, min(Q, n)]` each, in order of the queries. Costs that are not finite, as a
    diverging network gives, count as the worst.
    """
    costs = np.nan_to_num(costs, nan=1e6, posinf=1e6, neginf=-1e6)
    pairs = np.array([linear_sum_assignment(cost) for cost in costs], dtype=np.int64)  # [L, 2, min(Q, n)]
    return pairs[:, 0], pairs[:, 1]


def mask_costs(vectors: Tensor, features: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Cross entropy and dice loss, `[L, Q, n]` each, of every mask against every target `[n, P]` (0 to 1).

    Masks are the products of `vectors` `[L, Q, D]` and `features` `[D, P]`, at P points that all share. On a CPU equal
    vectors cost the same to the last bit, so that the first of them is assigned.
    """
    if not vectors.place.is_cpu_place():
        return _mask_costs(paddle.matmul(vectors, features), targets)
    layers, queries, width = vectors.shape
    costs = _mask_costs_in_cache(vectors.numpy().reshape(-1, width), features.numpy(), targets.numpy())
    by_entropy, by_dice = (paddle.to_tensor(cost.reshape(layers, queries, -1)) for cost in costs)
    return by_entropy, by_dice


def _mask_costs(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    each = targets.unsqueeze(0).expand([logits.shape[0], -1, -1])
    # Cross entropy is linear in the target: two products do for what would be a tensor [L, Q, n, P].
    one = F.softplus(-logits)
    zero = one + logits
    entropy = paddle.matmul(one, each, transpose_y=True) + paddle.matmul(zero, 1 - each, transpose_y=True)
    return entropy / logits.shape[-1], dice_cost(F.sigmoid(logits), each)


def _mask_costs_in_cache(
    vectors: NDArray[np.float32], features: NDArray[np.float32], targets: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The same for vectors `[R, D]`, at few points at a time: on a CPU several times faster than all masks at once,
    which do not fit its cache."""
    # A product's last bits may depend on a row's place.
    places: dict[bytes, int] = {}
    rows = [places.setdefault(vector.tobytes(), len(places)) for vector in vectors]
    vectors = np.frombuffer(b"".join(places), np.float32).reshape(len(places), -1)
    count, points = targets.shape
    entropy, overlap = np.zeros((2, len(vectors), count), np.float32)
    area = np.zeros((len(vectors), 1), np.float32)
    with np.errstate(invalid="ignore"):
        for start in range(0, points, AT_A_TIME):
            logits = vectors @ features[:, start : start + AT_A_TIME]
            target = targets[:, start : start + AT_A_TIME].T
            one, masks = entropy_and_sigmoid(logits)
            entropy += (one + logits).sum(-1, keepdims=True) - logits @ target
            overlap += masks @ target
            area += masks.sum(-1, keepdims=True)
    return (entropy / points)[rows], dice(overlap, area + targets.sum(-1))[rows]
