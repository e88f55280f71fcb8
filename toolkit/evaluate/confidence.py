"""What scores are worth: their reliability, the best threshold of each class, and what is taken for what above it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from toolkit.evaluate.curves import Ranking
from toolkit.evaluate.match import match
from toolkit.evaluate.overlap import Bools, Floats, Ints
from toolkit.evaluate.tables import SAME, Tables

BINS = 10
LEAST = 0.05
"""Scores below are left out of the reliability: they are of rows that fill up a list, and nobody sees them."""


@dataclass(frozen=True)
class Reliability:
    """Detections by score, in bins of equal width."""

    count: Ints
    score: Floats
    """Mean score; NaN in an empty bin."""
    right: Floats
    """Share of those that are right, at a mask IoU of 0.5."""

    @property
    def ece(self) -> float | None:
        """Expected calibration error: by how much score and share differ, on average over the detections."""
        some = self.count > 0
        if not some.any():
            return None
        return float(np.average(np.abs(self.score - self.right)[some], weights=self.count[some]))

    @property
    def surplus(self) -> float | None:
        """By how much scores are higher than the share of right ones."""
        some = self.count > 0
        return float(np.average((self.score - self.right)[some], weights=self.count[some])) if some.any() else None


@dataclass(frozen=True)
class Threshold:
    """The least score of a class, and what it gives on the measured pictures."""

    score: float
    precision: float
    recall: float
    f1: float
    reached: bool
    """Whether the wanted precision is."""


def outcomes(tables: Tables, *, classes: int, limit: int = 100) -> tuple[Ints, Bools, Ints]:
    """Rows of the detections that count, whether each is right at a mask IoU of 0.5, and annotations by class."""
    ranking = Ranking(tables, "mask", classes=classes, limit=limit)
    outcome = ranking.outcome(ious=np.array([SAME]))
    [taken] = outcome.taken
    right, ignored = np.zeros(len(tables.label), np.bool_), np.zeros(len(tables.label), np.bool_)
    right[taken.found[taken.right]] = True
    ignored[taken.found[~taken.right]] = True
    rows = np.flatnonzero((ranking.place >= 0) & ~ignored)
    return rows, right[rows], np.bincount(tables.truth_label[outcome.counts], minlength=classes)


def reliability(score: Floats, right: Bools) -> Reliability:
    """Of detections with these scores `[n]`, right or not."""
    seen = score >= LEAST
    score, right = score[seen], right[seen]
    places = np.minimum((score * BINS).astype(np.int64), BINS - 1)
    count = np.bincount(places, minlength=BINS)
    with np.errstate(invalid="ignore"):
        return Reliability(
            count,
            np.bincount(places, score, minlength=BINS) / count,
            np.bincount(places, right, minlength=BINS) / count,
        )


def best_threshold(score: Floats, right: Bools, truths: int, *, precision: float | None = None) -> Threshold | None:
    """The threshold of a class with the highest F1, or, of those with at least `precision`, with the highest recall.

    Where no threshold has that precision, the one that comes nearest. None where nothing right was found.
    """
    if not truths or not right.any():
        return None
    order = np.argsort(-score, kind="stable")
    score, hits = score[order], np.cumsum(right[order])
    shown = np.arange(1, len(score) + 1)
    # A threshold lies below equal scores, never between them.
    possible = np.append(score[1:] < score[:-1], True)
    exact, f1 = hits / shown, 2 * hits / (shown + truths)
    enough = possible & (exact >= (precision or 0))
    wanted = f1 if precision is None else np.where(enough.any(), hits * enough, exact)
    place = int(np.argmax(np.where(possible, wanted, -1)))
    least = _between(float(score[place]), float(score[place + 1]) if place + 1 < len(score) else 0.0)
    return Threshold(least, float(exact[place]), float(hits[place] / truths), float(f1[place]), bool(enough[place]))


def best_thresholds(
    tables: Tables, classes: Sequence[str], *, limit: int = 100, precision: float | None = None
) -> dict[str, Threshold]:
    """By name of class, for those of which something right was found; see `best_threshold`."""
    rows, right, truths = outcomes(tables, classes=len(classes), limit=limit)
    label, score = tables.label[rows], tables.score[rows]
    each = (
        best_threshold(score[label == k], right[label == k], int(truths[k]), precision=precision)
        for k in range(len(classes))
    )
    return {name: threshold for name, threshold in zip(classes, each, strict=True) if threshold}


def confusion(tables: Tables, *, classes: int, threshold: float) -> Ints:
    """`[K + 1, K + 1]`, annotations by their class (rows) and by that of the detection that took them (columns).

    Whatever its class, the best detection chooses first, at a mask IoU of 0.5. The last row has the detections that
    took nothing, the last column the annotations that were not taken. Crowd regions are left out, with what lies in
    them.
    """
    shown = tables.score >= threshold
    pairs = tables.mask.where(shown[tables.mask.found] & (tables.mask.iou >= SAME))
    matches = match(
        pairs, tables.picture, crowd=tables.truth_crowd, ignored=tables.truth_crowd, thresholds=np.array([SAME])
    )
    taken = matches.truth[0] >= 0
    found, truth = matches.found[taken], matches.truth[0][taken]
    matrix = np.zeros((classes + 1, classes + 1), np.int64)
    counts = ~tables.truth_crowd[truth]
    np.add.at(matrix, (tables.truth_label[truth[counts]], tables.label[found[counts]]), 1)
    shown[found] = False
    left = ~tables.truth_crowd
    left[truth] = False
    matrix[-1, :-1] = np.bincount(tables.label[shown], minlength=classes)
    matrix[:-1, -1] = np.bincount(tables.truth_label[left], minlength=classes)
    return matrix


def _between(score: float, below: float) -> float:
    """A round threshold that keeps `score` and nothing `below`."""
    for digits in range(2, 7):
        middle = round((score + below) / 2, digits)
        if below < middle <= score:
            return middle
    return score
