"""Average precision after COCO, with the bits of pycocotools, on the original size of the pictures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.data.coco import Split
from toolkit.data.detections import Detections
from toolkit.evaluate.curves import curves
from toolkit.evaluate.tables import Kind, Tables, join, tabulate

_HEADLINE = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


@dataclass(frozen=True)
class Metrics:
    """AP and AR, 0 to 1; None where the data has nothing to measure (no small objects, say)."""

    mask: dict[str, float | None]
    box: dict[str, float | None]
    mask_by_class: dict[str, float | None]
    box_by_class: dict[str, float | None]
    pictures: int
    detections: int

    @property
    def mask_ap(self) -> float:
        return self.mask["AP"] or 0.0

    @property
    def box_ap(self) -> float:
        return self.box["AP"] or 0.0

    def as_dict(self) -> dict[str, Any]:
        return {
            "mask": self.mask,
            "box": self.box,
            "mask_by_class": self.mask_by_class,
            "box_by_class": self.box_by_class,
            "pictures": self.pictures,
            "detections": self.detections,
        }


class Evaluator:
    """Collects what became of the detections, picture by picture, and sums it up.

    Args:
        max_detections: how many of each class and picture enter AP.
        thorough: keep what explanations need; see `tabulate`.
    """

    def __init__(self, split: Split, *, max_detections: int = 100, thorough: bool = False) -> None:
        self.split = split
        self.max_detections = max_detections
        self.thorough = thorough
        self._pictures = {picture.id: picture for picture in split.pictures}
        self._parts: list[Tables] = []

    def add(self, picture_id: int, found: Detections) -> Tables:
        """Take in the detections of one picture of the split; returns its tables."""
        self._parts.append(tabulate(self._pictures[picture_id], found, thorough=self.thorough))
        return self._parts[-1]

    def collected(self) -> list[Tables]:
        """What was added, as plain data for `take_over`."""
        return self._parts

    def take_over(self, parts: list[Tables]) -> None:
        """Add what another evaluator of the same split has collected."""
        self._parts += parts

    def tables(self) -> Tables:
        """Of all pictures added."""
        return join(self._parts)

    def summarize(self) -> Metrics:
        """AP and AR over the pictures added; no detection at all is AP 0."""
        return summarize(self.tables(), self.split.classes, max_detections=self.max_detections)


def summarize(tables: Tables, classes: Sequence[str], *, max_detections: int = 100) -> Metrics:
    """AP and AR of the tables; `classes` are names in label order."""
    mask, mask_by_class = headline(tables, "mask", classes, max_detections=max_detections)
    box, box_by_class = headline(tables, "box", classes, max_detections=max_detections)
    return Metrics(mask, box, mask_by_class, box_by_class, len(tables.picture_ids), len(tables.label))


def headline(
    tables: Tables, kind: Kind, classes: Sequence[str], *, max_detections: int = 100
) -> tuple[dict[str, float | None], dict[str, float | None]]:
    """The headline figures, and AP by class."""
    found = curves(tables, kind, classes=len(classes), limits=sorted((1, 10, max_detections)))
    figures = dict(zip(_HEADLINE, _headline(found.precision, found.recall), strict=True))
    return figures, {name: _mean(found.precision[:, :, i, 0, -1]) for i, name in enumerate(classes)}


def evaluate(detections: Iterable[tuple[int, Detections]], split: Split, *, max_detections: int = 100) -> Metrics:
    """Metrics of a stream of (picture id, detections)."""
    evaluator = Evaluator(split, max_detections=max_detections)
    for picture_id, found in detections:
        evaluator.add(picture_id, found)
    return evaluator.summarize()


def _headline(precision: NDArray[np.float64], recall: NDArray[np.float64]) -> list[float | None]:
    # precision: [IoU threshold, recall, class, area, max detections]; recall: the same without its second axis.
    # COCOeval.summarize insists on exactly 100 detections; the means are the same.
    whole, small, medium, large = range(4)
    return [
        _mean(precision[:, :, :, whole, -1]),
        _mean(precision[0, :, :, whole, -1]),
        _mean(precision[5, :, :, whole, -1]),
        *(_mean(precision[:, :, :, area, -1]) for area in (small, medium, large)),
        *(_mean(recall[:, :, whole, limit]) for limit in range(3)),
        *(_mean(recall[:, :, area, -1]) for area in (small, medium, large)),
    ]


def _mean(values: NDArray[np.float64]) -> float | None:
    measured = values[values > -1]
    return float(measured.mean()) if measured.size else None
