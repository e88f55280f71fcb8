"""SOLOv2's targets and losses (Wang et al., "SOLOv2: Dynamic and Fast Instance Segmentation", 2020).

Legend: B pictures, n objects of a picture, G cells of all grids in a row (coarse grids last, each row by row),
P pairs of an object and a cell that is to predict it, C classes, E channels of the mask feature.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor

from toolkit.nn.denominator import over_processes

MASK_STRIDE = 4
"""Pixels of the network input per pixel of the mask feature, each way."""


@dataclass(frozen=True)
class Cells:
    """The cells of all grids as one list, so that an object meets all of them in one operation. Tensors `[G]`."""

    row: Tensor
    column: Tensor
    side: Tensor
    """Cells along each side of the cell's own grid."""
    smallest: Tensor
    largest: Tensor
    """Range of sqrt(box area), in pixels of the network input, of the objects its grid is for."""

    @classmethod
    def of(cls, *, grids: Sequence[int], scale_ranges: Sequence[tuple[float, float]]) -> Cells:
        side = np.repeat(grids, np.square(grids))
        number = np.concatenate([np.arange(g * g) for g in grids])
        smallest, largest = (np.repeat(bound, np.square(grids)) for bound in zip(*scale_ranges, strict=True))
        columns = (number // side, number % side, side, smallest, largest)
        return cls(*(paddle.to_tensor(column, dtype="float64") for column in columns))


def assign(*, boxes: Tensor, masks: Tensor, cells: Cells, sigma: float) -> Tensor:
    """Which cells are to predict which object: bool `[n, G]`.

    These are the cells of the grids for the object's size that touch its centre region: a box around the centre
    of mass with `sigma` times the sides of the object's box, but at most one cell away from the centre's.

    Args:
        boxes: `[n, 4]`, x1 y1 x2 y2 in pixels of the network input.
        masks: `[n, h, w]`, 0 or 1, the size of the network input.
    """
    height, width = masks.shape[1:]
    # Float64 from here: float32 cannot hold the sums over a large mask, and the floors below would err.
    masks = masks.astype("float32")
    rows = masks.sum(axis=2).astype("float64")
    columns = masks.sum(axis=1).astype("float64")
    mass = rows.sum(axis=1)
    boxes = boxes.astype("float64")
    size = boxes[:, 2:] - boxes[:, :2]
    scale = size.prod(axis=1).clip(min=0).sqrt().unsqueeze(1)

    def near(profile: Tensor, reach: Tensor, length: int, position: Tensor) -> Tensor:
        centre = (profile * paddle.arange(length, dtype="float64")).sum(axis=1) / mass.clip(min=1)
        cell, low, high = (
            (edge / length).unsqueeze(1) * cells.side for edge in (centre, centre - reach, centre + reach)
        )
        return (
            (position >= low.floor())
            & (position <= high.floor())
            & (position >= cell.floor() - 1)
            & (position <= cell.floor() + 1)
        )

    reach = size * (sigma / 2)
    return (
        near(rows, reach[:, 1], height, cells.row)
        & near(columns, reach[:, 0], width, cells.column)
        & (scale >= cells.smallest)
        & (scale <= cells.largest)
        & (mass > 0).unsqueeze(1)
    )


def shrink(masks: Tensor) -> Tensor:
    """Masks `[n, h, w]` at the size of the mask feature, float32 `[n, h / 4, w / 4]`, 0 or 1.

    This is bilinear sampling with halves rounded up: at a quarter, it sees the four middle pixels of each 4 x 4 block.
    """
    count, height, width = masks.shape
    blocks = masks.reshape([count, height // MASK_STRIDE, MASK_STRIDE, width // MASK_STRIDE, MASK_STRIDE])
    middle = blocks[:, :, 1:3, :, 1:3].astype("float32")
    return (middle.sum(axis=[2, 4]) >= 2).astype("float32")


def solo_losses(
    *,
    cate_logits: Tensor,
    kernels: Tensor,
    mask_features: Tensor,
    classes: Sequence[Tensor],
    boxes: Sequence[Tensor],
    masks: Sequence[Tensor],
    cells: Cells,
    sigma: float = 0.2,
    mask_weight: float = 3.0,
    alpha: float = 0.25,
    gamma: float = 2.0,
) -> dict[str, Tensor]:
    """Dice loss of the masks (`loss_ins`) and focal loss of the cells' classes (`loss_cate`).

    A cell that two objects claim has the class of the later one, and a mask to learn from each.

    Args:
        cate_logits: `[B, G, C]`; kernels: `[B, G, E]`; mask_features: `[B, E, h / 4, w / 4]`.
        classes, boxes, masks: one a picture; `[n]`, `[n, 4]` x1 y1 x2 y2 and `[n, h, w]`. n may be 0.
    """
    num_classes = cate_logits.shape[2]
    dice, counted, labels = [], [], []
    for picture, (its_classes, its_boxes, its_masks) in enumerate(zip(classes, boxes, masks, strict=True)):
        claims = assign(boxes=its_boxes, masks=its_masks, cells=cells, sigma=sigma)
        labels.append(cell_classes(claims, its_classes, background=num_classes))
        owner, cell = claims.nonzero().unbind(axis=1)
        targets = shrink(its_masks).flatten(1)
        logits = paddle.matmul(kernels[picture].gather(cell), mask_features[picture].flatten(1))
        dice.append(_dice(logits, targets, owner))
        # Of a very small object nothing may be left at a quarter of the size.
        counted.append((targets.sum(axis=1) > 0).astype("float32").gather(owner))
    weight = paddle.concat(counted)
    loss_ins = (paddle.concat(dice) * weight).sum() / over_processes(weight.sum())

    label = paddle.stack(labels)
    positives = (label < num_classes).sum()
    loss_cate = F.sigmoid_focal_loss(
        cate_logits,
        F.one_hot(label, num_classes + 1)[..., :num_classes],
        normalizer=over_processes(positives, plus=1.0).reshape([1]),
        alpha=alpha,
        gamma=gamma,
    )
    return {"loss_ins": loss_ins * mask_weight, "loss_cate": loss_cate}


def cell_classes(claims: Tensor, classes: Tensor, *, background: int) -> Tensor:
    """Class of every cell, int64 `[G]`: that of the last object with a claim `[n, G]`, or `background`."""
    turn = paddle.arange(1, claims.shape[0] + 1, dtype="int64").unsqueeze(1)
    nobody = paddle.zeros([1, claims.shape[1]], dtype="int64")
    last = paddle.concat([nobody, claims.astype("int64") * turn]).max(axis=0)
    return paddle.concat([paddle.to_tensor([background], dtype="int64"), classes.astype("int64")]).gather(last)


def _dice(logits: Tensor, targets: Tensor, owner: Tensor) -> Tensor:
    """Dice loss `[P]` of mask logits `[P, S]` against row `owner` `[P]` of the targets `[n, S]` (V-Net, squared)."""
    masks = F.sigmoid(logits)
    # All pairs by one product, then each its own: cheaper than to gather a full-size target for every row.
    overlap = paddle.matmul(masks, targets, transpose_y=True).take_along_axis(owner.unsqueeze(1), axis=1).squeeze(1)
    squares = (masks * masks).sum(axis=1) + targets.sum(axis=1).gather(owner)
    return 1 - 2 * overlap / (squares + 2e-3)
