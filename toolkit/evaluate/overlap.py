"""How far masks, and their boundaries, are the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from toolkit.data.masks import Crop, crop_area, intersection

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

BOUNDARY = 0.02
"""Width of a boundary, in terms of the picture's diagonal."""


@dataclass(frozen=True)
class Pairs:
    """A detection and an annotation of its picture, as far as they overlap."""

    found: Ints
    """`[p]`, row of the detection; `truth`: row of the annotation."""
    truth: Ints
    iou: Floats
    """As COCO has it: with a crowd region, the part of the detection inside of it."""

    def where(self, chosen: Bools) -> Pairs:
        return Pairs(self.found[chosen], self.truth[chosen], self.iou[chosen])


def mask_pairs(
    masks: Sequence[Crop], areas: Floats, truths: Sequence[Crop | None], crowd: Bools, asked: Bools, *, least: float
) -> Pairs:
    """Pairs whose masks overlap by at least `least`; the IoU has the bits of pycocotools'.

    Args:
        truths: None for those that nobody asks for.
        asked: `[D, G]`, which pairs are looked at.
    """
    extents = np.array([mask.extent for mask in masks], np.int64).reshape(-1, 1, 4)
    truth_extents = np.array([truth.extent if truth else (0, 0, 0, 0) for truth in truths], np.int64).reshape(1, -1, 4)
    shared = np.minimum(extents[..., 2:], truth_extents[..., 2:]) - np.maximum(extents[..., :2], truth_extents[..., :2])
    truth_areas = np.array([crop_area(truth) if truth else 0 for truth in truths], np.float64)
    # No more than this can the masks share; most pairs need no look at their pixels.
    most = np.minimum(shared.clip(0).prod(-1), np.minimum(areas[:, None], truth_areas))
    at_least = np.where(crowd, areas[:, None], np.maximum(areas[:, None], truth_areas))
    rows, columns = np.nonzero(asked & (most > 0) & (most >= least * at_least))
    pairs = ((masks[i], truths[j]) for i, j in zip(rows.tolist(), columns.tolist(), strict=True))
    both = np.array([intersection(mask, truth) for mask, truth in pairs if truth], np.float64)
    union = np.where(crowd[columns], areas[rows], areas[rows] + truth_areas[columns] - both)
    iou = both / union
    kept = iou >= least
    return Pairs(rows[kept], columns[kept], iou[kept])


def boundary_pairs(
    pairs: Pairs, masks: Sequence[Crop], truths: Sequence[Crop | None], crowd: Bools, size: tuple[int, int]
) -> Pairs:
    """The same pairs with the smaller of the masks' IoU and that of their boundaries (Cheng et al. 2021).

    Args:
        pairs: rows of `masks` and `truths`.
        size: height and width of the picture.
    """
    width = max(1, round(BOUNDARY * float(np.hypot(*size))))
    found = {i: boundary(masks[i], width) for i in np.unique(pairs.found).tolist()}
    truth = {j: boundary(crop, width) for j in np.unique(pairs.truth).tolist() if (crop := truths[j])}
    ious = []
    for i, j in zip(pairs.found.tolist(), pairs.truth.tolist(), strict=True):
        both, own = intersection(found[i], truth[j]), crop_area(found[i])
        ious.append(both / (own if crowd[j] else own + crop_area(truth[j]) - both))
    return Pairs(pairs.found, pairs.truth, np.minimum(pairs.iou, np.array(ious, np.float64)))


def boundary(crop: Crop, width: int) -> Crop:
    """The pixels of a mask that lie less than `width` from its outside; beyond the picture's edge is outside too."""
    framed = cv2.copyMakeBorder(crop.mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    inner = cv2.erode(framed, np.ones((2 * width + 1, 2 * width + 1), np.uint8))[1:-1, 1:-1]
    return Crop(crop.mask - inner.astype(np.uint8), crop.x, crop.y)
