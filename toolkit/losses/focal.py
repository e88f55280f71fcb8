"""Classification losses that weigh down what is easy."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import Tensor

ALPHA, GAMMA = 0.25, 2.0


def varifocal_loss(logits: Tensor, quality: Tensor, *, alpha: float = 0.75, gamma: float = 2.0) -> Tensor:
    """Loss of every logit, same shape (Zhang et al. 2021, arXiv:2008.13367).

    `quality` is the IoU that a positive should predict, and negative where there is no object: an object of IoU 0
    is still a positive, of weight 0.
    """
    positive = quality >= 0
    quality = quality.clip(min=0)
    weight = paddle.where(positive, quality, alpha * F.sigmoid(logits) ** gamma)
    return weight * F.binary_cross_entropy_with_logits(logits, quality, reduction="none")


def focal_cost(logits: Tensor) -> Tensor:
    """Cost of calling each logit a positive rather than a negative, by focal loss, same shape (Lin et al. 2017)."""
    probability = F.sigmoid(logits)
    # The small number keeps the cost finite where a sigmoid is saturated.
    positive = -ALPHA * (1 - probability) ** GAMMA * (probability + 1e-8).log()
    negative = -(1 - ALPHA) * probability**GAMMA * (1 - probability + 1e-8).log()
    return positive - negative
