"""Proof that an engine finds what the trained model finds, and the file that says so."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.data.detections import Detections
from toolkit.data.images import read_rgb
from toolkit.data.masks import Crop, crop_area, intersection
from toolkit.data.preprocess import Prepared
from toolkit.errors import UserError
from toolkit.evaluate.ap import evaluate
from toolkit.pipeline.exported import Exported
from toolkit.pipeline.sample import ROWS, Sample

AP_CHANGE = {"f32": 0.001, "bf16": 0.003, "int8": 0.01}
"""By how much mask and box AP may change."""
NEAR = {"f32": (1e-3, 0.5), "bf16": (0.05, 5.0), "int8": (0.2, 20.0)}
"""Rows match whose scores differ by no more than the first, and whose boxes, in pixels, by no more than the second."""
MATCHED, MASK_IOU = 0.98, 0.99
"""Least part of the rows that must match in f32, since ties inside a network (top-k, suppression) may flip a few, and
least mean over the matched rows."""
LEARNT = 0.05
"""Mask AP below which a model has hardly learnt anything."""
HARDLY = 0.5, 0.9
"""Stand for `MATCHED` and `MASK_IOU` then: many scores are equal, 1.0 even, and mask logits near 0, so that the last
bits decide which rows suppression keeps and which pixels are set."""


@dataclass(frozen=True)
class Agreement:
    """One engine against the trained model, over all pictures."""

    precision: str
    rows: int
    """Of the trained model."""
    matched: int
    """Rows of which the engine has one of the same class with score and box as near as `NEAR` asks."""
    score: float
    """Largest difference of the matched rows; so too `box`, in pixels."""
    box: float
    mask_iou_min: float
    mask_iou_mean: float
    mask_ap_change: float | None = None
    """The engine's AP less the trained model's; None where the pictures have no annotations."""
    box_ap_change: float | None = None
    ms_per_picture: float = 0.0
    """Median, without reading and preparing the picture."""
    learnt: bool = True
    """Whether the trained model's mask AP is at least `LEARNT`, or not known."""

    @property
    def holds(self) -> bool:
        """Whether the engine may run without being asked for by name."""
        if self.mask_ap_change is None or self.box_ap_change is None:
            small = self.precision == "f32"
        else:
            small = max(abs(self.mask_ap_change), abs(self.box_ap_change)) <= AP_CHANGE[self.precision]
        if self.precision != "f32":
            return small
        matched, mask_iou = (MATCHED, MASK_IOU) if self.learnt else HARDLY
        # Of few rows one may miss.
        missing = self.rows - self.matched
        return small and missing <= max(1, round(self.rows * (1 - matched))) and self.mask_iou_mean >= mask_iou

    def describe(self) -> str:
        if not self.rows:
            return "nothing found by the trained model, which shows little"
        change = "" if self.mask_ap_change is None else f", mask AP {self.mask_ap_change:+.4f}"
        change += "" if self.box_ap_change is None else f", box AP {self.box_ap_change:+.4f}"
        change += "" if self.learnt else "; the model has hardly learnt anything, so this shows little"
        return (
            f"{self.matched} of {self.rows} rows matched, score within {self.score:.1e}, box within {self.box:.3f} px, "
            f"mask IoU mean {self.mask_iou_mean:.4f} (least {self.mask_iou_min:.3f}){change}"
        )


@dataclass(frozen=True)
class Certificate:
    """What `certificate.json` says."""

    model: str
    pictures: int
    source: str
    """Where the pictures are from."""
    trained_ms_per_picture: float
    trained_mask_ap: float | None
    """On these pictures; None where they have no annotations."""
    backends: dict[str, Agreement]
    """By engine."""

    def write(self, folder: Path) -> Path:
        path = folder / "certificate.json"
        tolerance = {"near": NEAR, "matched": MATCHED, "mask_iou": MASK_IOU, "ap_change": AP_CHANGE}
        tree = asdict(self) | {"backends": as_tree(self.backends), "tolerance": tolerance}
        path.write_text(json.dumps(tree, indent=2, ensure_ascii=False), encoding="utf-8")
        return path


def read_agreements(exported: Exported) -> dict[str, Agreement]:
    """What the export's certificate says of each engine; empty where it has none.

    Raises UserError if it cannot be read.
    """
    path = exported.folder / "certificate.json"
    if not path.is_file():
        return {}
    try:
        return from_tree(json.loads(path.read_text(encoding="utf-8"))["backends"])
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise UserError(f"{path}: not a certificate that can be read ({error!r:.80}); export the model again") from None


def as_tree(agreements: Mapping[str, Agreement]) -> dict[str, Any]:
    """As JSON has them, with the verdict."""
    return {engine: asdict(agreement) | {"holds": agreement.holds} for engine, agreement in agreements.items()}


def from_tree(tree: Mapping[str, Any]) -> dict[str, Agreement]:
    """What `as_tree` wrote. Raises KeyError or TypeError for something else."""
    known = {field.name for field in fields(Agreement)}
    # Certificates of the first version knew f32 alone.
    return {
        engine: Agreement(**{"precision": "f32", **{k: v for k, v in row.items() if k in known}})
        for engine, row in tree.items()
    }


def check(exported: Exported, sample: Sample, backend: Callable[..., list[Detections]], *, precision: str) -> Agreement:
    """Run `backend` over the pictures of `sample` and hold what it finds against what the trained model found."""
    prepared = [exported.preprocess(read_rgb(picture.path)) for picture in sample.split.pictures]
    found, ms = run_each(lambda picture: backend([picture], threshold=0.0)[0], prepared)
    agreement = replace(compare(sample.trained, found, precision=precision), ms_per_picture=round(ms, 1))
    before, after = average_precisions(sample, sample.trained), average_precisions(sample, found)
    if before is None or after is None:
        return agreement
    mask, box = after[0] - before[0], after[1] - before[1]
    return replace(agreement, mask_ap_change=mask, box_ap_change=box, learnt=before[0] >= LEARNT)


def run_each(call: Callable[[Prepared], Detections], pictures: Sequence[Prepared]) -> tuple[list[Detections], float]:
    """What `call` finds in each picture, at most `ROWS` instances, and its median time in ms."""
    found, times = [], []
    for picture in pictures:
        start = time.perf_counter()
        detections = call(picture)
        times.append(1000 * (time.perf_counter() - start))
        found.append(detections.best(ROWS))
    return found, statistics.median(times)


def compare(truth: Sequence[Detections], found: Sequence[Detections], *, precision: str = "f32") -> Agreement:
    """Match the best `ROWS` of each picture of `truth` with those of `found`."""
    near_score, near_box = NEAR[precision]
    rows, scores, boxes, ious = 0, [0.0], [0.0], []
    for a, b in zip(truth, found, strict=True):
        free = np.ones(len(b), bool)
        for i in range(min(len(a), ROWS)):
            x1, y1, x2, y2 = a.boxes[i]
            if x1 >= x2 or y1 >= y2:
                continue  # Beside the picture: exports leave it out.
            rows += 1
            score = np.abs(b.scores - a.scores[i])
            box = np.abs(b.boxes - a.boxes[i]).max(axis=1, initial=0.0)
            near = np.flatnonzero(free & (b.labels == a.labels[i]) & (score <= near_score) & (box <= near_box))
            if len(near) == 0:
                continue
            # Early in training many rows have like masks, or none: the nearest of them is meant.
            distance = score / near_score + box / near_box
            overlap, _, j = max((mask_iou(a.masks[i], b.masks[k]), -distance[k], k) for k in near)
            free[j] = False
            scores.append(float(score[j]))
            boxes.append(float(box[j]))
            ious.append(overlap)
    return Agreement(
        precision=precision,
        rows=rows,
        matched=len(ious),
        score=max(scores),
        box=max(boxes),
        mask_iou_min=min(ious, default=1.0),
        mask_iou_mean=float(np.mean(ious)) if ious else 1.0,
    )


def average_precisions(sample: Sample, found: Sequence[Detections]) -> tuple[float, float] | None:
    """Mask and box AP of what was found in each picture; None where the sample has no annotations."""
    if not sample.annotated:
        return None
    ids = [picture.id for picture in sample.split.pictures]
    metrics = evaluate(zip(ids, found, strict=True), sample.split, max_detections=ROWS)
    return metrics.mask_ap, metrics.box_ap


def mask_iou(a: Crop, b: Crop) -> float:
    """Intersection over union of two masks of one picture; 1 if both are empty."""
    both = intersection(a, b)
    union = crop_area(a) + crop_area(b) - both
    return both / union if union else 1.0
