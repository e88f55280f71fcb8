"""Average precision after COCO, by pycocotools, on the original size of the pictures."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from toolkit.data.coco import Split
from toolkit.data.detections import Detections
from toolkit.data.masks import crop_to_rle, segmentation_to_rle

Kind = Literal["mask", "box"]
_IOU_TYPE = {"mask": "segm", "box": "bbox"}
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
    """Collects detections picture by picture, masks as RLE, and sums them up."""

    def __init__(self, split: Split, *, max_detections: int = 100) -> None:
        self.split = split
        self.max_detections = max_detections
        self._rows: list[dict[str, Any]] = []
        self._seen: set[int] = set()

    def add(self, picture_id: int, found: Detections) -> None:
        """Take in the detections of one picture of the split."""
        self._seen.add(picture_id)
        x1, y1, x2, y2 = found.boxes.T.astype(float)
        sides = np.stack([x1, y1, x2 - x1, y2 - y1], axis=1)
        rows = zip(sides.tolist(), found.scores.tolist(), found.labels.tolist(), found.masks, strict=True)
        for box, score, label, mask in rows:
            self._rows.append(
                {
                    "image_id": picture_id,
                    "category_id": label + 1,
                    "bbox": box,
                    "score": score,
                    "segmentation": crop_to_rle(mask, found.size),
                }
            )

    def collected(self) -> tuple[list[dict[str, Any]], set[int]]:
        """What was added, as plain data for `take_over`."""
        return self._rows, self._seen

    def take_over(self, rows: list[dict[str, Any]], seen: set[int]) -> None:
        """Add what another evaluator of the same split has collected."""
        self._rows += rows
        self._seen |= seen

    def results(self) -> list[dict[str, Any]]:
        """The detections as a COCO results list, with the category ids of the data."""
        ids = self.split.category_ids
        return [{**row, "category_id": ids[row["category_id"] - 1]} for row in self._rows]

    def summarize(self) -> Metrics:
        """AP and AR over the pictures added; no detection at all is AP 0."""
        with contextlib.redirect_stdout(io.StringIO()):
            truth = self._ground_truth()
            mask, mask_by_class = self._measure(truth, "mask")
            box, box_by_class = self._measure(truth, "box")
        return Metrics(mask, box, mask_by_class, box_by_class, len(self._seen), len(self._rows))

    def _ground_truth(self) -> COCO:
        pictures = [picture for picture in self.split.pictures if picture.id in self._seen]
        annotations: list[dict[str, Any]] = []
        for picture in pictures:
            for annotation in picture.annotations:
                x1, y1, x2, y2 = annotation.bbox
                annotations.append(
                    {
                        # pycocotools takes a match with annotation id 0 for no match.
                        "id": len(annotations) + 1,
                        "image_id": picture.id,
                        "category_id": annotation.category + 1,
                        "bbox": [x1, y1, x2 - x1, y2 - y1],
                        "area": annotation.area,
                        "iscrowd": int(annotation.iscrowd),
                        "segmentation": segmentation_to_rle(annotation.segmentation, (picture.height, picture.width)),
                    }
                )
        truth = COCO()
        truth.dataset = {
            "images": [{"id": p.id, "height": p.height, "width": p.width} for p in pictures],
            "annotations": annotations,
            "categories": [{"id": i + 1, "name": name} for i, name in enumerate(self.split.classes)],
        }
        truth.createIndex()
        return truth

    def _measure(self, truth: COCO, kind: Kind) -> tuple[dict[str, float | None], dict[str, float | None]]:
        dropped = "bbox" if kind == "mask" else "segmentation"
        rows = [{key: value for key, value in row.items() if key != dropped} for row in self._rows]
        # loadRes refuses an empty list.
        found = truth.loadRes(rows) if rows else _empty_like(truth)
        coco_eval = COCOeval(truth, found, _IOU_TYPE[kind])
        coco_eval.params.maxDets = [1, 10, self.max_detections]
        coco_eval.evaluate()
        coco_eval.accumulate()
        precision, recall = coco_eval.eval["precision"], coco_eval.eval["recall"]
        headline = dict(zip(_HEADLINE, _headline(precision, recall), strict=True))
        by_class = {name: _mean(precision[:, :, i, 0, -1]) for i, name in enumerate(self.split.classes)}
        return headline, by_class


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


def _empty_like(truth: COCO) -> COCO:
    empty = COCO()
    empty.dataset = {**truth.dataset, "annotations": []}
    empty.createIndex()
    return empty
