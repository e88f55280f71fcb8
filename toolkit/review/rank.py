"""What looking at a picture is expected to bring, in corrections.

A correction is an instance that someone adds, removes, renames or redraws. Where there are annotations, each point at
which model and annotations disagree counts as one; where there are none, a detection counts by how near its score lies
to the threshold: right at it, it is as likely wrong as right, which is half a correction. Rare classes count more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toolkit.data.coco import Annotation, Picture, Split
from toolkit.data.detections import Detections
from toolkit.data.masks import Crop, Segmentation, mask_to_polygons, rle_to_crop, segmentation_to_rle
from toolkit.pipeline.certificate import mask_iou

NEAR = 0.2
"""How far from the threshold a score still counts as unsure."""
SAME = 0.5
"""Least IoU of two masks of one object."""
GOOD = 0.75
"""IoU from which outlines count as agreeing."""
RAREST = 3.0
"""The most that an instance of a rare class counts."""


@dataclass(frozen=True)
class Point:
    """Something to look at in a picture."""

    gain: float
    text: str
    detection: int | None = None
    """The one to show as a suggestion, if one is to be."""


@dataclass(frozen=True)
class Shape:
    """What is drawn for correction."""

    label: str
    segmentation: Segmentation
    crowd: bool = False
    note: str = ""
    suggested: bool = False
    """Beside annotations: to be taken or thrown away."""


@dataclass(frozen=True)
class Judged:
    picture: Picture
    part: str
    points: list[Point]
    """The weightiest first."""
    shapes: list[Shape]

    @property
    def gain(self) -> float:
        return sum(point.gain for point in self.points)


def weights_of(train: Split) -> NDArray[np.float64]:
    """For each class the root of how much rarer than the average it is in the training, from 1 to `RAREST`."""
    labels = [a.category for picture in train.pictures for a in picture.annotations]
    counts = np.bincount(labels, minlength=len(train.classes)).clip(1)
    return np.sqrt(counts.mean() / counts).clip(1.0, RAREST)


def judge(
    picture: Picture,
    found: Detections,
    *,
    part: str,
    annotated: bool,
    classes: Sequence[str],
    weights: NDArray[np.float64],
    threshold: float,
) -> Judged:
    """What there is to look at in a picture, and what is drawn: annotations with suggestions, or the predictions."""
    found = found.above(max(0.0, threshold - NEAR))
    names = [f"{classes[label]} {score:.2f}" for label, score in zip(found.labels, found.scores, strict=True)]
    weight = weights[found.labels]
    if not annotated:
        points = list(_unsure(found, names, weight, threshold, range(len(found))))
        sure = [i for i in range(len(found)) if found.scores[i] >= threshold]
        shapes = [shape for i in sure for shape in _drawn(found, i, classes, names[i], suggested=False)]
    else:
        points = list(_disagreements(picture, found, names, weight, threshold, classes, weights))
        shapes = [Shape(classes[a.category], a.segmentation, a.iscrowd) for a in picture.annotations]
        for point in points:
            if point.detection is not None:
                shapes += _drawn(found, point.detection, classes, point.text, suggested=True)
    points.sort(key=lambda point: -point.gain)
    return Judged(picture, part, points, shapes)


def _unsure(
    found: Detections, names: Sequence[str], weight: NDArray[np.float64], threshold: float, rows: Sequence[int]
) -> Iterator[Point]:
    """Detections near the threshold, but for those that lie on a surer one."""
    for i in rows:
        closeness = 1 - abs(float(found.scores[i]) - threshold) / NEAR
        if closeness > 0 and all(mask_iou(found.masks[i], found.masks[j]) < SAME for j in range(i)):
            yield Point(0.5 * closeness * float(weight[i]), f"unsure: {names[i]}")


def _disagreements(
    picture: Picture,
    found: Detections,
    names: Sequence[str],
    weight: NDArray[np.float64],
    threshold: float,
    classes: Sequence[str],
    weights: NDArray[np.float64],
) -> Iterator[Point]:
    masks = [_crop_of(annotation, picture) for annotation in picture.annotations]
    open_ = {i for i, annotation in enumerate(picture.annotations) if not annotation.iscrowd}
    crowds = [mask for mask, annotation in zip(masks, picture.annotations, strict=True) if annotation.iscrowd]
    unsure = []
    for i in range(len(found)):
        overlaps = {k: mask_iou(found.masks[i], masks[k]) for k in open_}
        best = max(overlaps, key=lambda k: overlaps[k], default=None)
        if best is None or overlaps[best] < SAME:
            if any(_inside(found.masks[i], crowd) >= SAME for crowd in crowds):
                continue
            if found.scores[i] >= threshold:
                yield Point(float(weight[i]), f"predicted, not annotated: {names[i]}", i)
            else:
                unsure.append(i)
            continue
        open_.discard(best)
        label = picture.annotations[best].category
        if label != found.labels[i]:
            if found.scores[i] >= threshold:
                text = f"annotated {classes[label]}, predicted {names[i]}"
                yield Point(float(max(weight[i], weights[label])), text, i)
        elif overlaps[best] < GOOD:
            text = f"outlines differ, IoU {overlaps[best]:.2f}: {names[i]}"
            yield Point(float((1 - overlaps[best]) * weight[i]), text, i)
    for k in sorted(open_):
        label = picture.annotations[k].category
        yield Point(float(weights[label]), f"annotated, not found: {classes[label]}")
    yield from _unsure(found, names, weight, threshold, unsure)


def _crop_of(annotation: Annotation, picture: Picture) -> Crop:
    return rle_to_crop(segmentation_to_rle(annotation.segmentation, (picture.height, picture.width)))


def _inside(mask: Crop, region: Crop) -> float:
    """The part of a mask that lies in a region."""
    left, top = max(mask.x, region.x), max(mask.y, region.y)
    right, bottom = min(mask.extent[2], region.extent[2]), min(mask.extent[3], region.extent[3])
    if left >= right or top >= bottom:
        return 0.0
    one = mask.mask[top - mask.y : bottom - mask.y, left - mask.x : right - mask.x] > 0
    other = region.mask[top - region.y : bottom - region.y, left - region.x : right - region.x] > 0
    return float((one & other).sum()) / max(1, int((mask.mask > 0).sum()))


def _drawn(found: Detections, i: int, classes: Sequence[str], note: str, *, suggested: bool) -> Iterator[Shape]:
    """The detection with an outline of few points, which can be moved by hand."""
    mask = found.masks[i]
    polygons = mask_to_polygons(mask.mask, x=mask.x, y=mask.y, tolerance=1.0)
    if polygons:
        yield Shape(classes[int(found.labels[i])], polygons, note=note, suggested=suggested)
