"""Losses of a set of predicted instances, of which each object owns one (Mask DINO, Li et al. 2023, arXiv:2206.02777).

Boxes are centre and size relative to the picture. A mask is predicted as a vector that is multiplied with the mask
features of its picture; only the masks that are compared with something are ever made.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import paddle
from numpy.typing import NDArray
from paddle import Tensor

from toolkit.losses.focal import focal_cost, varifocal_loss
from toolkit.losses.iou import giou, iou
from toolkit.losses.matching import hungarian, mask_costs
from toolkit.losses.points import point_losses, sample, sample_together
from toolkit.nn.resize import resize_bilinear

WEIGHTS = {"class": 4.0, "bbox": 5.0, "giou": 2.0, "mask": 5.0, "dice": 5.0}

# L layers, B pictures, Q queries, C classes, D width of a mask vector; N objects in all pictures;
# G groups of queries that each predict the same M objects


class Predictions(NamedTuple):
    """What the layers of a decoder say."""

    logits: Tensor
    """`[L, B, Q, C]`"""
    boxes: Tensor
    """`[L, B, Q, 4]`"""
    masks: Tensor
    """Vectors `[L, B, Q, D]`."""


class Objects(NamedTuple):
    """The objects of all pictures, picture by picture."""

    counts: list[int]
    """How many each picture has."""
    classes: Tensor
    """int64 `[N]`"""
    boxes: Tensor
    """`[N, 4]`"""
    masks: Tensor
    """`[N, H, W]`, 0 or 1."""


class Pairs(NamedTuple):
    """Which query owns which object. Pairs of one picture follow those of another, equally many in every layer."""

    counts: list[int]
    """How many pairs each picture has."""
    queries: NDArray[np.int64]
    """`[L, G, M]`, indices within the picture."""
    objects: NDArray[np.int64]
    """`[L, M]`, indices among all objects."""


@paddle.no_grad()
def match(predictions: Predictions, features: Tensor, objects: Objects, *, points: int) -> Pairs:
    """Assign queries to objects at least cost, in each layer on its own; one group.

    `features`: mask features `[B, D, h, w]`; `points`: where masks are compared, per picture.
    """
    queries = predictions.logits.shape[2]
    places = paddle.rand([len(objects.counts), points, 2])
    features = sample_together(features, places)  # [B, D, P]
    found_queries, found_objects = [], []
    start = 0
    for picture, count in enumerate(objects.counts):
        own = slice(start, start + count)
        start += count
        if not count:
            continue
        logits, boxes, vectors = (part[:, picture] for part in predictions)  # [L, Q, *]
        target = sample(objects.masks[own].unsqueeze(0), places[picture : picture + 1])[0]  # [n, P]
        entropy, dice = mask_costs(vectors, features[picture], target)
        box, target_box = boxes.unsqueeze(2), objects.boxes[own]
        cost = (
            WEIGHTS["class"] * focal_cost(logits).index_select(objects.classes[own], axis=2)
            + WEIGHTS["bbox"] * (box - target_box).abs().sum(-1)
            - WEIGHTS["giou"] * giou(corners(box), corners(target_box))
            + WEIGHTS["mask"] * entropy
            + WEIGHTS["dice"] * dice
        )
        query, owned = hungarian(cost.astype("float32").numpy())
        found_queries.append(query)
        found_objects.append(owned + own.start)
    return Pairs(
        counts=[min(count, queries) for count in objects.counts],
        queries=np.concatenate(found_queries, axis=1)[:, None],
        objects=np.concatenate(found_objects, axis=1),
    )


def set_losses(
    predictions: Predictions,
    features: Tensor,
    objects: Objects,
    pairs: Pairs | None,
    *,
    count: Tensor,
    points: int,
) -> dict[str, Tensor]:
    """Weighted losses `[L]` per object: `class`, `bbox`, `giou`, `mask` and `dice`.

    `pairs` is None where there are no objects; `count`: by how many objects the sums over all queries are divided.
    The class score learns the IoU of the box, in the last layer that of the mask. Masks are compared at `points`
    places each.
    """
    logits, boxes, vectors = predictions
    layers, pictures, queries, classes = logits.shape
    quality = paddle.full([logits.size], -1.0)
    losses = {name: paddle.zeros([layers]) for name in ("bbox", "giou", "mask", "dice")}
    if pairs is not None:
        picture = np.repeat(np.arange(pictures), pairs.counts)
        row = picture * queries + pairs.queries  # [L, G, M], within a layer
        place = row + pictures * queries * np.arange(layers).reshape([-1, 1, 1])
        own = np.broadcast_to(pairs.objects[:, None], row.shape)

        box, target_box = _rows(boxes.flatten(0, 2), place), _rows(objects.boxes, own)
        losses["bbox"] = (box - target_box).abs().sum([1, 2, 3])
        losses["giou"] = (1 - giou(corners(box), corners(target_box))).sum([1, 2])

        masks = [_masks(vectors[layer], features, row[layer].T) for layer in range(layers)]  # L x [M, G, h, w]
        targets = [_rows(objects.masks, layer) for layer in pairs.objects]  # L x [M, H, W]
        compared = [point_losses(*pair, count=points) for pair in zip(masks, targets, strict=True)]
        losses["mask"], losses["dice"] = (
            paddle.stack([value.sum() for value in values]) for values in zip(*compared, strict=True)
        )

        box_quality = iou(corners(box.detach()), corners(target_box))
        mask_quality = _mask_iou(masks[-1].detach(), targets[-1]).transpose([1, 0]).unsqueeze(0)
        found = paddle.concat([box_quality[:-1], mask_quality])  # [L, G, M]
        entry = paddle.to_tensor(place) * classes + _rows(objects.classes, own)
        quality = paddle.scatter(quality, entry.flatten(), found.flatten())
    classified = varifocal_loss(logits, quality.reshape(logits.shape))
    losses = {"class": classified.mean(2).sum([1, 2]) / (count / queries)} | {
        name: value / count for name, value in losses.items()
    }
    return {name: WEIGHTS[name] * value for name, value in losses.items()}


def corners(boxes: Tensor) -> Tensor:
    """Centre and size -> `x1 y1 x2 y2`, `[..., 4]`."""
    centre, side = boxes.chunk(2, axis=-1)
    return paddle.concat([centre - side / 2, centre + side / 2], axis=-1)


def _rows(table: Tensor, index: NDArray[np.int64]) -> Tensor:
    """Rows of a table `[R, *K]`: `[*index.shape, *K]`."""
    flat = paddle.to_tensor(np.ascontiguousarray(index).reshape(-1))
    return table.gather(flat).reshape([*index.shape, *table.shape[1:]])


def _masks(vectors: Tensor, features: Tensor, rows: NDArray[np.int64]) -> Tensor:
    """Logits `[M, G, h, w]` of the masks in `rows` `[M, G]` of all `[B * Q]`."""
    masks = paddle.bmm(vectors, features.flatten(2)).flatten(0, 1)  # [BQ, h * w]
    return masks.gather(paddle.to_tensor(rows.flatten())).reshape([*rows.shape, *features.shape[2:]])


@paddle.no_grad()
def _mask_iou(logits: Tensor, targets: Tensor) -> Tensor:
    """IoU `[M, G]` of masks `[M, G, h, w]` with `targets` `[M, H, W]`, at twice the masks' resolution."""
    size = (2 * logits.shape[2], 2 * logits.shape[3])
    predicted = (resize_bilinear(logits, size) > 0).astype("float32").flatten(2)
    expected = (resize_bilinear(targets.unsqueeze(1), size) > 0.5).astype("float32").flatten(2)
    overlap = (predicted * expected).sum(-1)
    union = predicted.sum(-1) + expected.sum(-1) - overlap
    # An object lost at this resolution, and predicted so, is a perfect match.
    return (overlap + 1e-2) / (union + 1e-2)
