"""Loss of masks that matter inside their box alone (YOLACT, Bolya et al. 2019, arXiv:1904.02689)."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import Tensor


def box_mask_loss(logits: Tensor, targets: Tensor, boxes: Tensor) -> Tensor:
    """Binary cross entropy `[P]` of each mask, summed over the cells inside its box and divided by the box's area.

    Args:
        logits: `[P, h, w]`; targets: `[P, h, w]`, 0 or 1.
        boxes: `[P, 4]`, x1 y1 x2 y2 in cells of the masks.
    """
    entropy = F.binary_cross_entropy_with_logits(
        logits, targets, weight=inside_box(boxes, logits.shape[1], logits.shape[2]), reduction="none"
    )
    sides = boxes[:, 2:] - boxes[:, :2]
    # A box without area holds no cell, so its sum is 0 whatever it is divided by.
    return entropy.sum([1, 2]) / (sides[:, 0] * sides[:, 1]).clip(min=1e-9)


def inside_box(boxes: Tensor, height: int, width: int) -> Tensor:
    """float32 `[P, height, width]`: 1 where column x and row y have x1 <= x < x2 and y1 <= y < y2."""
    x1, y1, x2, y2 = boxes.unsqueeze(-1).unbind(1)
    columns, rows = (paddle.arange(side, dtype=boxes.dtype) for side in (width, height))
    across = ((columns >= x1) & (columns < x2)).astype("float32")
    down = ((rows >= y1) & (rows < y2)).astype("float32")
    return down.unsqueeze(2) * across.unsqueeze(1)
