"""What is wrong with the masks, and what each kind of error costs, after TIDE (Bolya et al. 2020)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from toolkit.evaluate.bootstrap import average
from toolkit.evaluate.curves import Ranking
from toolkit.evaluate.overlap import Bools, Floats, Ints, Pairs
from toolkit.evaluate.tables import NEAR, SAME, Tables

ERRORS = ("localisation", "class", "duplicate", "background", "both", "missed")
"""In the order in which they are looked for."""


@dataclass(frozen=True)
class Errors:
    ap50: float | None
    lost: dict[str, float]
    """By how much AP50 would rise without the errors of each kind."""
    counts: dict[str, Ints]
    """`[K]`, how many reach the threshold: by class of the detection, those missed by class of the annotation."""
    box_right: int
    """Errors of localisation of the mask where the box has the IoU that the mask lacks."""


def find_errors(tables: Tables, *, classes: int, limit: int = 100, threshold: float = 0.0) -> Errors:
    """Sort the false detections and the missed annotations of thorough `tables` into kinds, at a mask IoU of 0.5.

    A false detection is one of *localisation* if it overlaps an annotation of its class by 0.1 to 0.5; of *class* if it
    overlaps one of another class by 0.5; a *duplicate* if a better one has taken its annotation; *background* if it
    overlaps nothing by 0.1; of *both* class and localisation otherwise. An annotation is *missed* that was not taken
    and that no error of localisation or class is about.

    Repairing an error of class or localisation makes the best detection about an annotation right, if that is still
    free, and drops the others; false detections of the other kinds are dropped; missed annotations are not asked for.

    Args:
        threshold: least score of the false detections that are counted; AP50 is of all.
    """
    ranking = Ranking(tables, "mask", classes=classes, limit=limit)
    outcome = ranking.outcome(ious=np.array([SAME]))
    [taken] = outcome.taken
    right, used = np.zeros(len(tables.label), np.bool_), np.zeros(len(tables.truth_label), np.bool_)
    right[taken.found[taken.right]] = True
    used[taken.truth] = True
    false = ranking.place >= 0
    false[taken.found] = False

    pairs = tables.mask.where(outcome.counts[tables.mask.truth])
    same = tables.label[pairs.found] == tables.truth_label[pairs.truth]
    own_iou, own = _best(pairs.where(same), len(false))
    other_iou, other = _best(pairs.where(~same), len(false))
    kinds: dict[str, Bools] = {}
    left = false
    for name, fits in (
        ("localisation", (own_iou >= NEAR) & (own_iou < SAME)),
        ("class", other_iou >= SAME),
        ("duplicate", own_iou >= SAME),
        ("background", other_iou < NEAR),
        ("both", np.ones(len(false), np.bool_)),
    ):
        kinds[name], left = left & fits, left & ~fits
    missed = outcome.counts & ~used
    missed[own[kinds["localisation"]]] = False
    missed[other[kinds["class"]]] = False

    truths = np.bincount(tables.truth_label[outcome.counts], minlength=classes)
    relevant = false | right
    asked = truths > 0

    def ap50(hit: Bools, kept: Bools, label: Ints, truths: Ints = truths) -> float:
        return _ap(tables.score[kept], label[kept], hit[kept], truths, asked)

    before = ap50(right, relevant, tables.label)
    lost = {}
    for name, about in (("localisation", own), ("class", other)):
        mended = _first_about(kinds[name], about, tables.score, used)
        label = tables.label.copy()
        label[mended] = tables.truth_label[about[mended]]
        lost[name] = ap50(right | mended, relevant & ~(kinds[name] & ~mended), label) - before
    for name in ("duplicate", "background", "both"):
        lost[name] = ap50(right, relevant & ~kinds[name], tables.label) - before
    fewer = truths - np.bincount(tables.truth_label[missed], minlength=classes)
    lost["missed"] = ap50(right, relevant, tables.label, fewer) - before

    right_class = tables.label[tables.box.found] == tables.truth_label[tables.box.truth]
    box_iou, _ = _best(tables.box.where(right_class), len(false))
    shown = tables.score >= threshold
    counts = {name: np.bincount(tables.label[rows & shown], minlength=classes) for name, rows in kinds.items()}
    counts["missed"] = np.bincount(tables.truth_label[missed], minlength=classes)
    return Errors(
        ap50=before if asked.any() else None,
        lost={name: lost[name] for name in ERRORS},
        counts={name: counts[name] for name in ERRORS},
        box_right=int((kinds["localisation"] & shown & (box_iou >= SAME)).sum()),
    )


def _best(pairs: Pairs, detections: int) -> tuple[Floats, Ints]:
    """For each detection the highest IoU, 0 where there is none, and the annotation it is with."""
    order = np.argsort(pairs.iou, kind="stable")
    iou, truth = np.zeros(detections), np.full(detections, -1, np.int64)
    # Of several values for one place the last one stays.
    iou[pairs.found[order]], truth[pairs.found[order]] = pairs.iou[order], pairs.truth[order]
    return iou, truth


def _first_about(rows: Bools, about: Ints, score: Floats, used: Bools) -> Bools:
    """Of the detections `rows` the best about each annotation that is not used."""
    candidates = np.flatnonzero(rows)
    candidates = candidates[~used[about[candidates]]]
    candidates = candidates[np.argsort(-score[candidates], kind="stable")]
    first = np.zeros(len(rows), np.bool_)
    first[candidates[np.unique(about[candidates], return_index=True)[1]]] = True
    return first


def _ap(score: Floats, label: Ints, hit: Bools, truths: Ints, asked: Bools) -> float:
    """Mean AP over the classes `asked`; where nothing is left to be found, it is 1."""
    order = np.lexsort((-score, label))
    label, hit = label[order], hit[order]
    edges = np.searchsorted(label, np.arange(len(truths) + 1))
    each = []
    for k in np.flatnonzero(asked).tolist():
        right = hit[edges[k] : edges[k + 1]]
        hits, wrong = np.cumsum(right, dtype=np.int64)[right], np.cumsum(~right, dtype=np.int64)[right]
        each.append(float(average(hits[None], wrong[None], np.full((1, 1), float(truths[k])))[0]) if truths[k] else 1.0)
    return float(np.mean(each)) if each else 0.0
