"""Which boxes an R-CNN learns from: those that overlap an object, and some of those that do not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import paddle
from paddle import Tensor

from toolkit.losses.iou import pairwise_iou
from toolkit.nn.shape import take


class Objects(NamedTuple):
    """The objects of a batch, G a picture, where G is the largest number and at least 1; the rest are empty boxes."""

    boxes: Tensor
    """`[B, G, 4]`, x1 y1 x2 y2 in pixels of the network input."""
    classes: Tensor
    """int64 `[B, G]`."""
    rows: Tensor
    """int64 `[B, G]`: which of all objects of the batch, counted picture by picture."""
    present: Tensor
    """bool `[B, G]`."""

    @classmethod
    def of(cls, batch: dict[str, Any]) -> Objects:
        boxes = [b.astype("float32").reshape([-1, 4]) for b in batch["gt_bbox"]]
        classes = [c.astype("int64").reshape([-1]) for c in batch["gt_class"]]
        most = max(1, *(len(b) for b in boxes))
        counts = paddle.to_tensor([[len(b)] for b in boxes])  # [B, 1]
        place = paddle.arange(most).unsqueeze(0)
        return cls(
            boxes=_stack_padded(boxes, most),
            classes=_stack_padded(classes, most),
            rows=counts.cumsum(0) - counts + place,
            present=place < counts,
        )


class Match(NamedTuple):
    """For each of N boxes of a picture, the object it overlaps most."""

    overlap: Tensor
    """IoU `[B, N]`; 0 where the picture has no objects."""
    index: Tensor
    """int64 `[B, N]`, which of the G objects."""
    closest: Tensor
    """bool `[B, N]`: no other box overlaps one of the objects more."""


def match(boxes: Tensor, objects: Objects) -> Match:
    """`boxes`: `[B, N, 4]` or the same for all pictures, `[1, N, 4]`."""
    overlaps = pairwise_iou(objects.boxes, boxes)  # [B, G, N]
    highest = overlaps.max(axis=2, keepdim=True)
    closest = ((overlaps == highest) & (highest > 0)).any(axis=1)
    return Match(overlaps.max(axis=1), overlaps.argmax(axis=1), closest)


class Sample(NamedTuple):
    """S boxes of each picture, those on objects first."""

    index: Tensor
    """int64 `[B, S]`, which of the N boxes."""
    used: Tensor
    """bool `[B, S]`; False in rows that are left over because a picture has too few candidates."""
    positive: Tensor
    """bool `[B, S]`: on an object."""


def sample(positive: Tensor, negative: Tensor, *, count: int, most_positive: int, how: str) -> Sample:
    """Choose `count` boxes of each picture, at most `most_positive` of them on objects.

    Args:
        positive, negative: bool `[B, N]`, the candidates.
        how: `random`, or `first` for those with the lowest index.
    """
    batch, candidates = positive.shape
    if how == "first":
        rank = paddle.arange(candidates, 0, -1, dtype="float32").expand([batch, -1]) / (candidates + 1)
    else:
        rank = paddle.rand([batch, candidates])
    nowhere = paddle.full_like(rank, -1.0)
    count, most_positive = min(count, candidates), min(most_positive, candidates)
    best = paddle.topk(paddle.where(positive, rank, nowhere), most_positive)[0]
    chosen = positive & (rank >= best[:, -1:])
    priority = paddle.where(chosen, rank + 1, paddle.where(negative, rank, nowhere))
    priority, index = paddle.topk(priority, count)
    return Sample(index, priority >= 0, priority >= 1)


class Targets(NamedTuple):
    """Boxes to learn from and what they should become."""

    boxes: Tensor
    """`[B, S, 4]`."""
    used: Tensor
    """bool `[B, S]`; what the other rows hold means nothing."""
    labels: Tensor
    """int64 `[B, S]`: class of the object that the box is on; `num_classes` where it is on none."""
    rows: Tensor
    """int64 `[B, S]`: the object that the box overlaps most, as in `Objects.rows`."""
    goals: Tensor
    """`[B, S, 4]`: that object's box."""


def targets_of(boxes: Tensor, exist: Tensor, objects: Objects, *, overlap: float, num_classes: int) -> Targets:
    """Targets of all `boxes` `[B, S, 4]`; a box is on an object from an IoU of `overlap` on.

    exist: bool `[B, S]`, the boxes that count.
    """
    matched = match(boxes, objects)
    background = paddle.full_like(matched.index, num_classes)
    labels = paddle.where(matched.overlap >= overlap, take(objects.classes, matched.index), background)
    return Targets(boxes, exist, labels, take(objects.rows, matched.index), take(objects.boxes, matched.index))


def sampled(targets: Targets, *, count: int, most_positive: int, num_classes: int, how: str) -> Targets:
    """`count` of the targets of each picture, at most `most_positive` of them on objects; see `sample`."""
    positive = targets.used & (targets.labels < num_classes)
    negative = targets.used & (targets.labels == num_classes)
    chosen = sample(positive, negative, count=count, most_positive=most_positive, how=how)
    boxes, _, labels, rows, goals = (take(part, chosen.index) for part in targets)
    return Targets(boxes, chosen.used, labels, rows, goals)


def _stack_padded(parts: Sequence[Tensor], length: int) -> Tensor:
    """Tensors `[n, ...]` -> `[B, length, ...]`, with zeros behind."""
    return paddle.stack([paddle.concat([x, paddle.zeros([length - len(x), *x.shape[1:]], x.dtype)]) for x in parts])
