"""Precision and recall after COCO, with the bits of pycocotools."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from toolkit.evaluate.match import match, turns
from toolkit.evaluate.overlap import Bools, Floats, Ints
from toolkit.evaluate.tables import Kind, Tables

IOUS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
AREAS = ((0.0, 1e10), (0.0, 32.0**2), (32.0**2, 96.0**2), (96.0**2, 1e10))
"""Square pixels: all, small, medium, large."""
TINY = np.spacing(1)


@dataclass(frozen=True)
class Curves:
    """As COCOeval has them; -1 where a class has nothing to measure.

    The axes are T IoU thresholds, R recalls, K classes, A areas and M limits of detections a picture and class.
    """

    precision: Floats
    """`[T, R, K, A, M]`."""
    recall: Floats
    """`[T, K, A, M]`."""
    scores: Floats
    """`[T, R, K, A, M]`, at which score the recall is reached."""


@dataclass(frozen=True)
class Taken:
    """The detections that took an annotation at one IoU threshold, class by class and best first."""

    found: Ints
    truth: Ints
    right: Bools
    """Whether the annotation counts; else the detection is ignored."""
    inside: Bools
    """Whether the detection would have counted without it."""

    def where(self, chosen: Bools) -> Taken:
        return Taken(self.found[chosen], self.truth[chosen], self.right[chosen], self.inside[chosen])


@dataclass(frozen=True)
class Outcome:
    """What comes of the detections where objects of some area count."""

    inside: Bools
    """`[D]`, whether a detection that takes nothing is false; else it is ignored."""
    counts: Bools
    """`[G]`, whether an annotation counts."""
    taken: list[Taken]
    """At each IoU threshold."""


class Ranking:
    """The detections of all pictures, class by class and best first.

    Args:
        classes: how many there are.
        limit: how many detections of each class and picture are looked at.
    """

    def __init__(self, tables: Tables, kind: Kind, *, classes: int, limit: int) -> None:
        self.tables, self.kind, self.classes, self.limit = tables, kind, classes, limit
        self.group = tables.picture * classes + tables.label
        self.turn = turns(self.group)
        """`[D]`, place of a detection among those of its class and picture."""
        order = np.lexsort((-tables.score, tables.label))
        self.order = order[self.turn[order] < limit]
        """Rows by class, then by falling score; ties in the order of the pictures."""
        self.place = np.full(len(self.turn), -1, np.int64)
        self.place[self.order] = np.arange(len(self.order))
        self.starts = np.searchsorted(tables.label[self.order], np.arange(classes + 1))
        """`[K + 1]`, where each class begins in `order`."""

    def outcome(self, area: tuple[float, float] = AREAS[0], *, ious: Floats = IOUS) -> Outcome:
        """What comes of them at each of `ious` where objects of this area, in square pixels, count."""
        tables, (low, high) = self.tables, area
        own = tables.area(self.kind)
        inside = (own >= low) & (own <= high)
        counts = ~tables.truth_crowd & (tables.truth_area >= low) & (tables.truth_area <= high)
        pairs = tables.same_class(self.kind)
        matches = match(
            pairs.where(self.place[pairs.found] >= 0),
            self.group,
            crowd=tables.truth_crowd,
            ignored=~counts,
            thresholds=ious,
        )
        by_place = np.argsort(self.place[matches.found])
        found = matches.found[by_place]
        taken = []
        for truth in matches.truth[:, by_place]:
            some = truth >= 0
            taken.append(Taken(found[some], truth[some], counts[truth[some]], inside[found[some]]))
        return Outcome(inside, counts, taken)


def curves(tables: Tables, kind: Kind, *, classes: int, limits: Sequence[int]) -> Curves:
    """Precision and recall of all classes; `limits` ascend."""
    T, R, K, A, M = len(IOUS), len(RECALLS), classes, len(AREAS), len(limits)
    precision, recall, scores = (np.full(shape, -1.0) for shape in ((T, R, K, A, M), (T, K, A, M), (T, R, K, A, M)))
    ranking = Ranking(tables, kind, classes=classes, limit=limits[-1])
    found = np.flatnonzero(np.diff(ranking.starts))
    best = np.zeros(K)
    best[found] = tables.score[ranking.order[ranking.starts[found]]]
    for a, area in enumerate(AREAS):
        outcome = ranking.outcome(area)
        truths = np.bincount(tables.truth_label[outcome.counts], minlength=K)
        measured = truths > 0
        for m, limit in enumerate(limits):
            false = _cumulative((outcome.inside & (ranking.turn < limit))[ranking.order])
            for t, taken in enumerate(outcome.taken):
                precision[t, :, measured, a, m] = recall[t, measured, a, m] = scores[t, :, measured, a, m] = 0
                # The recall 0 is reached by the very first detection.
                scores[t, 0, measured, a, m] = best[measured]
                _fill(
                    precision[t, :, :, a, m],
                    recall[t, :, a, m],
                    scores[t, :, :, a, m],
                    ranking=ranking,
                    taken=taken.where(ranking.turn[taken.found] < limit),
                    false=false,
                    truths=truths,
                )
    return Curves(precision, recall, scores)


def _fill(
    precision: Floats, recall: Floats, scores: Floats, *, ranking: Ranking, taken: Taken, false: Ints, truths: Ints
) -> None:
    """Write precision and scores `[R, K]` and recall `[K]` of the classes of which something was found.

    Args:
        false: `[D + 1]`, how many detections at the first places of the ranking would be false had none taken anything.
        truths: `[K]`, annotations that count.
    """
    place, label = ranking.place[taken.found], ranking.tables.label[taken.found]
    edges = np.searchsorted(place, ranking.starts)
    saved, hits = _cumulative(taken.inside), _cumulative(taken.right)
    wrong = (false[place + 1] - saved[1:]) - (false[ranking.starts] - saved[edges])[label]
    right = (hits[1:] - hits[edges][label]).astype(np.float64)
    # Precision and recall rise where something right is found, and nowhere else.
    keep = taken.right
    right, wrong, label, score = right[keep], wrong[keep], label[keep], ranking.tables.score[taken.found[keep]]
    pr = right / (wrong + right + TINY)
    edges = hits[edges]
    reached = np.searchsorted(RECALLS, right / truths[label], side="right")
    steps = np.diff(reached, prepend=0)
    starts = edges[:-1][np.diff(edges) > 0]
    steps[starts] = reached[starts]
    for k in np.flatnonzero(np.diff(edges)).tolist():
        part = slice(edges[k], edges[k + 1])
        last = reached[part.stop - 1]
        precision[:last, k] = np.maximum.accumulate(pr[part][::-1])[::-1].repeat(steps[part])
        scores[1:last, k] = score[part].repeat(steps[part])[1:]
        recall[k] = right[part.stop - 1] / truths[k]


def _cumulative(values: Bools) -> Ints:
    """`[n + 1]`, how many are true before each place."""
    return np.concatenate([[0], np.cumsum(values)])
