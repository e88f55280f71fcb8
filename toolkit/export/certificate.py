"""Proof that an exported model finds what the trained one finds, backend by backend."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from paddle import nn

from toolkit.data.detections import Detections
from toolkit.data.masks import Crop
from toolkit.data.preprocess import Prepared, Preprocess, steps_of
from toolkit.errors import UserError
from toolkit.evaluate.detect import detect_prepared
from toolkit.pipeline.backends.onnxruntime import OnnxRuntime
from toolkit.pipeline.backends.paddle import PaddleInference
from toolkit.pipeline.exported import Exported, read_exported
from toolkit.recipe import Recipe

ROWS = 100
"""Detections a picture that are compared, the best by score."""
SCORE = 1e-3
BOX = 0.5
"""Pixels of the picture."""
MATCHED = 0.98
"""Least part of the rows that must match; ties inside a network (top-k, suppression) may flip a few."""
MASK_IOU = 0.99
"""Least mean over the matched rows."""


@dataclass(frozen=True)
class Agreement:
    """One backend against the trained model, over all pictures."""

    rows: int
    """Of the trained model."""
    matched: int
    """Rows of which the backend has one with the same class, the score to `SCORE` and the box to `BOX`."""
    score: float
    """Largest difference of the matched rows; so too `box`, in pixels."""
    box: float
    mask_iou_min: float
    mask_iou_mean: float
    ms_per_picture: float
    """Median, without reading and preparing the picture."""

    @property
    def holds(self) -> bool:
        # Of few rows one may miss.
        missing = self.rows - self.matched
        return missing <= max(1, round(self.rows * (1 - MATCHED))) and self.mask_iou_mean >= MASK_IOU

    def describe(self) -> str:
        if not self.rows:
            return "nothing found by the trained model, which shows little"
        return (
            f"{self.matched} of {self.rows} rows matched, score within {self.score:.1e}, box within {self.box:.3f} px, "
            f"mask IoU mean {self.mask_iou_mean:.4f} (least {self.mask_iou_min:.3f})"
        )


@dataclass(frozen=True)
class Certificate:
    """What `certificate.json` says."""

    model: str
    pictures: int
    source: str
    """Where the pictures are from."""
    trained_ms_per_picture: float
    backends: dict[str, Agreement]

    def write(self, folder: Path) -> Path:
        tree = asdict(self) | {"tolerance": {"score": SCORE, "box_px": BOX, "matched": MATCHED, "mask_iou": MASK_IOU}}
        path = folder / "certificate.json"
        path.write_text(json.dumps(tree, indent=2, ensure_ascii=False), encoding="utf-8")
        return path


def certify(
    model: nn.Layer, folder: Path, pictures: Sequence[NDArray[np.uint8]], *, recipe: Recipe, source: str
) -> Certificate:
    """Run the trained `model` and what lies in `folder`, on every backend, over `pictures` (uint8 `[H, W, 3]`, RGB).

    Raises UserError, with the figures, if they do not agree.
    """
    exported = read_exported(folder)
    prepared = _prepare(exported, pictures, recipe)
    model.eval()
    truth, trained_ms = _run(lambda picture: detect_prepared(model, [picture])[0], prepared)
    backends: dict[str, Agreement] = {}
    for name, load in _backends(exported).items():
        backend = load()
        found, ms = _run(lambda picture, b=backend: b([picture], threshold=0.0)[0], prepared)  # type: ignore[misc]
        backends[name] = compare(truth, found, ms=ms)
    certificate = Certificate(exported.model_name, len(pictures), source, round(trained_ms, 1), backends)
    for name, agreement in backends.items():
        if not agreement.holds:
            raise UserError(
                f"{folder}: the exported model differs from the trained one on {name}: {agreement.describe()}"
            )
    return certificate


def compare(truth: Sequence[Detections], found: Sequence[Detections], *, ms: float = 0.0) -> Agreement:
    """Match the best `ROWS` of each picture of `truth` with those of `found`."""
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
            near = np.flatnonzero(free & (b.labels == a.labels[i]) & (score <= SCORE) & (box <= BOX))
            if len(near) == 0:
                continue
            # Early in training many rows have like masks, or none: the nearest of them is meant.
            distance = score / SCORE + box / BOX
            overlap, _, j = max((mask_iou(a.masks[i], b.masks[k]), -distance[k], k) for k in near)
            free[j] = False
            scores.append(float(score[j]))
            boxes.append(float(box[j]))
            ious.append(overlap)
    return Agreement(
        rows=rows,
        matched=len(ious),
        score=max(scores),
        box=max(boxes),
        mask_iou_min=min(ious, default=1.0),
        mask_iou_mean=float(np.mean(ious)) if ious else 1.0,
        ms_per_picture=round(ms, 1),
    )


def mask_iou(a: Crop, b: Crop) -> float:
    """Intersection over union of two masks of one picture; 1 if both are empty."""
    left, top = max(a.x, b.x), max(a.y, b.y)
    right = min(a.x + a.mask.shape[1], b.x + b.mask.shape[1])
    bottom = min(a.y + a.mask.shape[0], b.y + b.mask.shape[0])
    both = 0
    if left < right and top < bottom:
        one = a.mask[top - a.y : bottom - a.y, left - a.x : right - a.x] > 0
        other = b.mask[top - b.y : bottom - b.y, left - b.x : right - b.x] > 0
        both = int((one & other).sum())
    union = int((a.mask > 0).sum()) + int((b.mask > 0).sum()) - both
    return both / union if union else 1.0


def _backends(exported: Exported) -> dict[str, Callable[[], Any]]:
    result: dict[str, Callable[[], Any]] = {}
    if exported.onnx:
        result["onnxruntime"] = lambda: OnnxRuntime(exported)
    # PaddleX switches oneDNN on by itself for some of the models; here it runs whatever has this certificate.
    result["paddle"] = lambda: PaddleInference(exported, onednn=False)
    result["paddle_onednn"] = lambda: PaddleInference(exported, onednn=True)
    return result


def _prepare(exported: Exported, pictures: Sequence[NDArray[np.uint8]], recipe: Recipe) -> list[Prepared]:
    as_trained = Preprocess(steps_of(recipe.data), origin="recipe")
    result = []
    for rgb in pictures:
        prepared = exported.preprocess(rgb)
        if not np.array_equal(as_trained(rgb).image, prepared.image):
            raise RuntimeError(f"{exported.folder}: inference.yml prepares pictures otherwise than the training did")
        result.append(prepared)
    return result


def _run(call: Callable[[Prepared], Detections], pictures: Sequence[Prepared]) -> tuple[list[Detections], float]:
    found, times = [], []
    for picture in pictures:
        start = time.perf_counter()
        found.append(call(picture))
        times.append(1000 * (time.perf_counter() - start))
    return found, statistics.median(times)
