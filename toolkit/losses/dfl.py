"""Distribution focal loss: distances learnt as distributions over bins (Li et al. 2020, arXiv:2006.04388)."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import Tensor


def distribution_focal_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy `[...]` of the two bins around each target, weighted by how near they are.

    Args:
        logits: `[..., bins]`; bin i stands for the distance i.
        targets: `[...]`, distances from 0 to below bins - 1.
    """
    lower = targets.floor()
    share = targets - lower
    log_p = F.log_softmax(logits, axis=-1)
    index = lower.astype("int64").unsqueeze(-1)
    near = paddle.take_along_axis(log_p, index, axis=-1).squeeze(-1)
    far = paddle.take_along_axis(log_p, index + 1, axis=-1).squeeze(-1)
    return -(near * (1 - share) + far * share)
