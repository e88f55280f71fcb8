"""All that a report says of a model, as plain figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.data.coco import Split
from toolkit.evaluate.ap import headline, summarize
from toolkit.evaluate.bootstrap import FEW, Interval, draws, interval, mean, resampled
from toolkit.evaluate.confidence import LEAST, Reliability, best_thresholds, confusion, outcomes, reliability
from toolkit.evaluate.curves import IOUS, RECALLS, curves
from toolkit.evaluate.errors import find_errors
from toolkit.evaluate.overlap import Floats
from toolkit.evaluate.slices import brightness, by_size, by_third, crowding
from toolkit.evaluate.tables import Kind, Tables

Figures = dict[str, Any]
BOTH: tuple[Kind, ...] = ("mask", "box")
SHOWN_IOUS = {"AP50": 0, "AP75": 5}


def explain(tables: Tables, split: Split, *, limit: int, threshold: float, precision: float | None = None) -> Figures:
    """The figures of a report, from thorough tables.

    Args:
        limit: detections of a picture and class that enter AP.
        threshold: least score of what the confusion matrix looks at, and of the errors that are counted.
        precision: what the threshold of each class is to give; by default the best F1.
    """
    names = split.classes
    count = len(names)
    metrics = summarize(tables, names, max_detections=limit)
    boundary, boundary_by_class = headline(tables, "boundary", names, max_detections=limit)
    weights = draws(len(tables.picture_ids))
    drawn = {kind: resampled(tables, kind, weights, classes=count, limit=limit) for kind in BOTH}
    errors = find_errors(tables, classes=count, limit=limit, threshold=threshold)
    rows, right, truths = outcomes(tables, classes=count, limit=limit)
    thresholds = best_thresholds(tables, names, limit=limit, precision=precision)
    shown = tables.shown(count).sum(0)
    by_class = []
    for k, name in enumerate(names):
        ap = metrics.mask_by_class[name]
        # The mean over the thresholds, all of which a class is measured at, or none.
        mask = interval(ap, drawn["mask"][:, :, k].mean(1)) if shown[k] >= FEW else Interval(ap)
        by_class.append(
            {
                "name": name,
                "objects": int(truths[k]),
                "mask": asdict(mask),
                "box": metrics.box_by_class[name],
                "boundary": boundary_by_class[name],
                "threshold": asdict(thresholds[name]) if name in thresholds else None,
                "errors": {kind: int(counts[k]) for kind, counts in errors.counts.items()},
            }
        )
    paths = {picture.id: picture.path for picture in split.pictures}
    pictures = [paths[number] for number in tables.picture_ids.tolist()]
    thirds = {"crowding": crowding(tables), "brightness": brightness(pictures)}
    parts = {"size": by_size(tables, classes=count, limit=limit)}
    parts |= {name: by_third(tables, values, classes=count, limit=limit) for name, values in thirds.items()}
    return {
        "pictures": metrics.pictures,
        "objects": int(truths.sum()),
        "detections": metrics.detections,
        "headline": {"mask": metrics.mask, "box": metrics.box, "boundary": boundary},
        "intervals": {kind: _intervals(getattr(metrics, kind), drawn[kind]) for kind in BOTH},
        "by_class": by_class,
        "wanted_precision": precision,
        "curves": _curves(tables, names, limit),
        "reliability": _reliability(reliability(tables.score[rows], right)),
        "confusion": {
            "threshold": threshold,
            "classes": [*names, None],
            "matrix": confusion(tables, classes=count, threshold=threshold).tolist(),
        },
        "errors": {
            "AP50": errors.ap50,
            "lost": errors.lost,
            "counts": {kind: int(counts.sum()) for kind, counts in errors.counts.items()},
            "box_right": errors.box_right,
            "threshold": threshold,
        },
        "slices": {name: [asdict(part) for part in slices] for name, slices in parts.items()},
    }


def _intervals(figures: dict[str, float | None], drawn: Floats) -> Figures:
    """Of AP, AP50 and AP75; `drawn` is `[B, T, K]`."""
    parts = {"AP": drawn, **{name: drawn[:, t : t + 1] for name, t in SHOWN_IOUS.items()}}
    return {name: asdict(interval(figures[name], mean(part))) for name, part in parts.items()}


def _curves(tables: Tables, names: Sequence[str], limit: int) -> Figures:
    """Precision at the recalls of COCO, over all classes and by class."""
    found: dict[str, Any] = {"recall": RECALLS.tolist()}
    for kind in BOTH:
        precision = curves(tables, kind, classes=len(names), limits=(limit,)).precision[..., 0, 0]
        measured = precision[0, 0] > -1
        some: NDArray[np.float64] = precision[:, :, measured]
        if not measured.any():
            found[kind] = {}
            continue
        found[kind] = {f"{IOUS[t]:.2f}": some[t].mean(1).tolist() for t in SHOWN_IOUS.values()}
        found[kind]["mean"] = some.mean((0, 2)).tolist()
        if kind == "mask":
            found["by_class"] = {name: precision[0, :, k].tolist() for k, name in enumerate(names) if measured[k]}
    return found


def _reliability(measured: Reliability) -> Figures:
    return {
        "ece": measured.ece,
        "surplus": measured.surplus,
        "least_score": LEAST,
        "bins": [
            {"count": count, "score": score if count else None, "right": right if count else None}
            for count, score, right in zip(
                measured.count.tolist(), measured.score.tolist(), measured.right.tolist(), strict=True
            )
        ],
    }
