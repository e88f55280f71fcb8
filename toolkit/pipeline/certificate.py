"""Proof that an engine finds what the trained model finds, and the file that says so."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.data.detections import Detections
from toolkit.data.images import read_rgb
from toolkit.data.masks import Crop, crop_area, differing, intersection
from toolkit.data.preprocess import Prepared
from toolkit.errors import UserError
from toolkit.evaluate.ap import evaluate
from toolkit.pipeline.exported import Exported
from toolkit.pipeline.sample import ROWS, Sample

AP_CHANGE = {"f32": 0.001, "bf16": 0.003, "int8": 0.01}
"""By how much mask and box AP may change."""
NEAR = {"f32": (1e-3, 0.5), "bf16": (0.05, 5.0), "int8": (0.2, 20.0)}
"""Rows match whose scores differ by no more than the first, and whose boxes, in pixels, by no more than the second."""
MATCHED = 0.98
"""Least part of the rows that must match, with the right mask, in f32: ties inside a network (top-k, suppression) may
flip a few."""
LEARNT = 0.05
"""Mask AP below which a model has hardly learned."""
HARDLY_LEARNED = "the model has hardly learned"
TIE = 1e-6
"""Scores that differ by less are tied: rounding decides which comes first. Where ties decide which rows are kept, few
rows of a correct export may match. Nearly all scores of trained models differ by more, also after an epoch."""
HARDLY = 0.8
"""Stands for `MATCHED` then, for rows without ties: one that is kept or not by a tie may suppress others."""
MASK_IOU, HARDLY_BEFORE = 0.99, (0.5, 0.9)
"""Where the sample does not tell which pixels rounding may set (version 0.1): the least mean over the matched rows, and
what stood for `MATCHED` and it of a model that has hardly learned."""


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
    """Whether the trained model's mask AP is at least `LEARNT`; where it is not known, whether most scores differ."""
    masks_wrong: int | None = None
    """Matched rows whose masks differ in pixels that rounding does not explain; None where that was not asked: in lower
    precision, and of samples of version 0.1."""
    tied: int = 0
    """Rows of the trained model whose score is another one's in the image, but for `TIE`."""
    tied_missing: int = 0
    """Those that no row of the engine matches, or none with the right mask."""

    @property
    def holds(self) -> bool:
        """Whether the engine may run without being asked for by name."""
        known = self.mask_ap_change is not None and self.box_ap_change is not None
        if self.precision != "f32":
            return known and self._ap_holds and (self.learnt or self._rows_hold)
        return self._rows_hold and (not known or self._ap_holds)

    @property
    def _ap_holds(self) -> bool:
        # An AP near 0 changes with the rows that the last bits choose.
        most = AP_CHANGE[self.precision] if self.learnt or self.precision != "f32" else LEARNT
        # Of a mask of few pixels rounding alone changes the AP.
        masks = (self.masks_wrong == 0 and self.matched == self.rows) or abs(self.mask_ap_change or 0.0) <= most
        return masks and abs(self.box_ap_change or 0.0) <= most

    @property
    def missing(self) -> int:
        """Rows that the engine should have and has not, or has with a wrong mask.

        Of a model that has hardly learned, those with tied scores are left out: which of them is found, rounding
        decides, or the order in which an engine sorts.
        """
        missing = self.rows - self.matched + (self.masks_wrong or 0)
        return missing - (0 if self.learnt else self.tied_missing)

    @property
    def _rows_hold(self) -> bool:
        """Whether enough rows match, with the right mask; of few rows one may not, but some must."""
        part = MATCHED if self.learnt else HARDLY
        if self.masks_wrong is None and self.precision == "f32":
            part, least = (MATCHED, MASK_IOU) if self.learnt else HARDLY_BEFORE
            if self.mask_iou_mean < least:
                return False
        rows = self.rows - (0 if self.learnt else self.tied_missing)
        return self.missing <= max(1, round(rows * (1 - part))) and (self.missing < rows or not self.rows)

    def describe(self) -> str:
        if not self.rows:
            return "nothing found by the trained model, which shows little"
        change = "" if self.mask_ap_change is None else f", mask AP {self.mask_ap_change:+.4f}"
        change += "" if self.box_ap_change is None else f", box AP {self.box_ap_change:+.4f}"
        change += "" if self.learnt else f"; {HARDLY_LEARNED}, so this shows little"
        wrong = "" if self.masks_wrong is None else f", {self.masks_wrong} masks wrong"
        return (
            f"{self.matched} of {self.rows} rows matched{wrong}, score within {self.score:.1e}, "
            f"box within {self.box:.3f} px, "
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

    @property
    def learnt(self) -> bool:
        """Whether the trained model has learned enough for the figures to show something."""
        return all(agreement.learnt for agreement in self.backends.values())

    def warning(self) -> str:
        """What to tell of a model that has hardly learned."""
        known = self.trained_mask_ap is not None
        why = f"mask AP {self.trained_mask_ap:.3f} on these images" if known else "most of its scores are equal"
        return (
            f"{HARDLY_LEARNED} ({why}): rounding decides which instances it finds, and that the engines agree with it "
            "shows little; train it further and export it again"
        )

    def write(self, folder: Path) -> Path:
        path = folder / "certificate.json"
        tolerance = {
            "near": NEAR,
            "matched": MATCHED,
            "hardly_learned": HARDLY,
            "mask_iou": MASK_IOU,
            "ap_change": AP_CHANGE,
        }
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
    agreement = compare(sample.trained, found, precision=precision, uncertain=sample.uncertain)
    agreement = replace(agreement, ms_per_picture=round(ms, 1))
    before, after = average_precisions(sample, sample.trained), average_precisions(sample, found)
    if before is None or after is None:
        return replace(agreement, learnt=2 * agreement.tied <= agreement.rows)
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


def compare(
    truth: Sequence[Detections],
    found: Sequence[Detections],
    *,
    precision: str = "f32",
    uncertain: Sequence[Sequence[Crop]] | None = None,
) -> Agreement:
    """Match the best `ROWS` of each picture of `truth` with those of `found`.

    Args:
        uncertain: for each mask of `truth` the pixels that rounding may set or not. A mask is wrong where any other
            pixel differs, in f32; of lower precision AP is asked alone.
    """
    judged = uncertain is not None and precision == "f32"
    rows, tied, tied_missing = 0, 0, 0
    pairs: list[_Pair] = []
    for number, (a, b) in enumerate(zip(truth, found, strict=True)):
        a = a.best(ROWS)
        is_tied = (np.abs(a.scores[:, None] - a.scores) < TIE).sum(axis=1) > 1
        for i, pair in _pairs(a, b, NEAR[precision], uncertain[number] if uncertain is not None and judged else None):
            rows += 1
            tied += int(is_tied[i])
            tied_missing += int(is_tied[i] and (pair is None or not pair.mask_right))
            if pair is not None:
                pairs.append(pair)
    ious = [pair.mask_iou for pair in pairs]
    return Agreement(
        precision=precision,
        rows=rows,
        matched=len(pairs),
        score=max((pair.score for pair in pairs), default=0.0),
        box=max((pair.box for pair in pairs), default=0.0),
        mask_iou_min=min(ious, default=1.0),
        mask_iou_mean=float(np.mean(ious)) if ious else 1.0,
        masks_wrong=sum(not pair.mask_right for pair in pairs) if judged else None,
        tied=tied,
        tied_missing=tied_missing,
    )


@dataclass(frozen=True)
class _Pair:
    """How a row differs from the one that matches it."""

    score: float
    box: float
    mask_iou: float
    mask_right: bool


def _pairs(
    a: Detections, b: Detections, near: tuple[float, float], uncertain: Sequence[Crop] | None
) -> Iterator[tuple[int, _Pair | None]]:
    """Yield each row of `a` with how the row of `b` that matches it differs, None where none does."""
    near_score, near_box = near
    free = np.ones(len(b), bool)
    for i, (x1, y1, x2, y2) in enumerate(a.boxes):
        if x1 >= x2 or y1 >= y2:
            continue  # Beside the picture: exports leave it out.
        score = np.abs(b.scores - a.scores[i])
        box = np.abs(b.boxes - a.boxes[i]).max(axis=1, initial=0.0)
        rows = np.flatnonzero(free & (b.labels == a.labels[i]) & (score <= near_score) & (box <= near_box))
        if not len(rows):
            yield i, None
            continue
        # Early in training many rows have like masks, or none: the nearest of them is meant.
        distance = score / near_score + box / near_box
        ranked = sorted(((mask_iou(a.masks[i], b.masks[k]), -distance[k], k) for k in rows), reverse=True)
        right = (uncertain is None or not differing(a.masks[i], b.masks[k], ignored=uncertain[i]) for _, _, k in ranked)
        place = next((place for place, is_right in enumerate(right) if is_right), None)
        overlap, _, j = ranked[place or 0]
        # One with a wrong mask may be the one that another row means.
        free[j] = place is None
        yield i, _Pair(float(score[j]), float(box[j]), overlap, place is not None)


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
