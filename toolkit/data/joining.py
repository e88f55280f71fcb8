"""Instances that were found in parts, in tiles of a picture that overlap, made one again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from toolkit.data.detections import Detections
from toolkit.data.masks import Bitmap, Crop, Window

SURE = 0.5
"""Least part of the greater score that the smaller one is, of two detections that are joined. Without it what is hardly
taken for an object reaches into the masks of good ones, and AP depends on the threshold that tiles were seen with."""


def join(
    found: Sequence[Detections], windows: Sequence[Window], size: tuple[int, int], *, agreement: float
) -> Detections:
    """The instances of a picture of `size` (height, width), from what was found in each of its tiles, best first.

    What two tiles show of an instance differs outside of their overlap, so it is there that masks are compared: two
    detections of one class are one instance if the IoU of their masks inside the overlap is at least `agreement`, and
    their scores are alike (`SURE`). In each pair of tiles the surest come first, and a detection has one partner at
    most. Chains over any number of tiles are one instance: the union of the masks, the box around the boxes, the
    greatest score. Touching objects share no pixels and stay apart.

    To merge where others suppress, and from one half on, is the practice of SAHI (Akyon et al. 2022, arXiv:2202.06934).
    It compares whole masks, by intersection over the smaller one: large objects of which two tiles share little stay
    apart, and a sliver of one object falls to its neighbour if the neighbour's mask reaches over it. To compare what
    lies where tiles meet is how QuPath's ObjectMerger joins cells.
    """
    boxes = np.concatenate([one.boxes + np.tile(window[:2], 2) for one, window in zip(found, windows, strict=True)])
    scores = np.concatenate([one.scores for one in found])
    labels = np.concatenate([one.labels for one in found])
    masks = [
        Crop(crop.mask, crop.x + window[0], crop.y + window[1])
        for one, window in zip(found, windows, strict=True)
        for crop in one.masks
    ]
    if len(windows) > 1 and len(scores):
        tiles = np.repeat(np.arange(len(windows)), [len(one) for one in found])
        placed = _Placed([_tight(crop) for crop in masks], scores, labels, tiles, np.array(windows), size)
        links = np.array(list(_links(placed, agreement)), np.int64).reshape(-1, 2)
        return _merged(placed, boxes, links)
    return Detections(boxes.astype(np.float32), scores, labels, masks, size)


class _Placed:
    """The detections of all tiles on the picture, tile by tile; a row is an index into them."""

    def __init__(
        self,
        masks: list[Crop],
        scores: NDArray[np.float32],
        labels: NDArray[np.int64],
        tiles: NDArray[np.int64],
        windows: NDArray[np.int64],
        size: tuple[int, int],
    ) -> None:
        self.masks, self.scores, self.labels, self.windows, self.size = masks, scores, labels, windows, size
        self.extents = np.array([crop.extent for crop in masks], np.int64).reshape(-1, 4)
        self.starts = np.searchsorted(tiles, np.arange(len(windows) + 1))

    def in_overlap(self, tile: int, overlap: Window) -> _Seen:
        """What `overlap` shows of the detections of a tile."""
        rows = np.arange(self.starts[tile], self.starts[tile + 1])
        extents = _intersection(self.extents[rows], np.array(overlap))
        there = (extents[:, :2] < extents[:, 2:]).all(1)
        rows, extents = rows[there], extents[there]
        areas = np.array([cv2.countNonZero(inside(self.masks[row], overlap)) for row in rows.tolist()], np.int64)
        return _Seen(rows[areas > 0], extents[areas > 0], areas[areas > 0])

    def shared(self, row: int, other: int, overlap: Window) -> int:
        """Pixels that the masks of two rows share inside `overlap`."""
        one, two = self.masks[row], self.masks[other]
        x1, y1 = map(max, one.extent[:2], two.extent[:2], overlap[:2])
        x2, y2 = map(min, one.extent[2:], two.extent[2:], overlap[2:])
        if x1 >= x2 or y1 >= y2:
            return 0
        return cv2.countNonZero(cv2.bitwise_and(inside(one, (x1, y1, x2, y2)), inside(two, (x1, y1, x2, y2))))


@dataclass(frozen=True)
class _Seen:
    """Detections of a tile in its overlap with another."""

    rows: NDArray[np.int64]
    extents: NDArray[np.int64]
    areas: NDArray[np.int64]
    """Of the masks, inside the overlap."""


def _links(placed: _Placed, agreement: float) -> Iterator[tuple[int, int]]:
    """Pairs of rows that are one instance, of each pair of tiles that overlap."""
    for tile, window in enumerate(placed.windows):
        overlaps = _intersection(placed.windows[tile + 1 :], window)
        for step in np.flatnonzero((overlaps[:, :2] < overlaps[:, 2:]).all(1)).tolist():
            x1, y1, x2, y2 = overlaps[step].tolist()
            yield from _between(placed, tile, tile + 1 + step, (x1, y1, x2, y2), agreement)


def _between(placed: _Placed, tile: int, other: int, overlap: Window, agreement: float) -> Iterator[tuple[int, int]]:
    one, two = placed.in_overlap(tile, overlap), placed.in_overlap(other, overlap)
    if not (len(one.rows) and len(two.rows)):
        return
    # Masks share no more than their boxes do, and have more between them: most pairs need no look at their pixels.
    corners = _intersection(one.extents[:, None], two.extents)
    most = (corners[..., 2:] - corners[..., :2]).clip(0).prod(2)
    likely: NDArray[np.bool_] = most >= agreement * np.maximum(one.areas[:, None], two.areas)
    likely &= np.equal.outer(placed.labels[one.rows], placed.labels[two.rows])
    scores = placed.scores[one.rows, None], placed.scores[two.rows]
    likely &= np.minimum(*scores) >= SURE * np.maximum(*scores)
    pairs: list[tuple[float, int, int]] = []
    for i, j in np.argwhere(likely).tolist():
        a, b = int(one.rows[i]), int(two.rows[j])
        both = placed.shared(a, b, overlap)
        iou = both / int(one.areas[i] + two.areas[j] - both)
        if iou >= agreement:
            pairs.append((iou * float(min(placed.scores[a], placed.scores[b])), a, b))
    taken: set[int] = set()
    for _, a, b in sorted(pairs, reverse=True):
        if not taken & {a, b}:
            taken |= {a, b}
            yield a, b


def _merged(placed: _Placed, boxes: NDArray[np.float32], links: NDArray[np.int64]) -> Detections:
    # Their import takes time, which predictions without tiles need not wait for.
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    rows = len(placed.masks)
    graph = coo_array((np.ones(len(links)), (links[:, 0], links[:, 1])), shape=(rows, rows))
    instance_of = connected_components(graph, directed=False)[1]
    instances: dict[int, list[int]] = defaultdict(list)
    # From the best one on: the first of an instance gives its score and its place.
    for row in np.argsort(-placed.scores, kind="stable").tolist():
        instances[instance_of[row]].append(row)
    groups = list(instances.values())
    best = [group[0] for group in groups]
    around = [[*boxes[group, :2].min(0), *boxes[group, 2:].max(0)] for group in groups]
    return Detections(
        np.array(around, np.float32).reshape(-1, 4),
        placed.scores[best],
        placed.labels[best],
        [_union([placed.masks[row] for row in group]) for group in groups],
        placed.size,
    )


def inside(crop: Crop, window: Window) -> Bitmap:
    """The part of a crop's mask that lies inside `window`."""
    x1, y1, x2, y2 = window
    left, top = max(0, x1 - crop.x), max(0, y1 - crop.y)
    return crop.mask[top : max(0, y2 - crop.y), left : max(0, x2 - crop.x)]


def _union(crops: Sequence[Crop]) -> Crop:
    if len(crops) == 1:
        return crops[0]
    extents = np.array([crop.extent for crop in crops])
    x, y = extents[:, :2].min(0).tolist()
    width, height = (extents[:, 2:].max(0) - (x, y)).tolist()
    mask = np.zeros((height, width), np.uint8)
    for crop in crops:
        rows, columns = crop.mask.shape
        mask[crop.y - y : crop.y - y + rows, crop.x - x : crop.x - x + columns] |= crop.mask
    return Crop(mask, x, y)


def _tight(crop: Crop) -> Crop:
    x, y, width, height = cv2.boundingRect(crop.mask) if crop.mask.size else (0, 0, 0, 0)
    return Crop(crop.mask[y : y + height, x : x + width], crop.x + x, crop.y + y)


def _intersection(boxes: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.int64]:
    """`[..., 4]`; where two share nothing, a low end lies at or beyond its high one."""
    return np.concatenate(
        [np.maximum(boxes[..., :2], others[..., :2]), np.minimum(boxes[..., 2:], others[..., 2:])], axis=-1
    )
