"""How sure AP is: the same figures over pictures drawn again and again from those that were measured."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from toolkit.evaluate.curves import AREAS, IOUS, RECALLS, TINY, Ranking
from toolkit.evaluate.overlap import Floats, Ints
from toolkit.evaluate.tables import Kind, Tables

DRAWS = 1000
FEW = 10
"""Pictures that show a class below which its draws say nothing: they hardly differ."""
AT_ONCE = 2_000_000
"""Numbers that one array may have."""


@dataclass(frozen=True)
class Interval:
    """A figure and its interval of 95 %."""

    value: float | None
    low: float | None = None
    high: float | None = None


def draws(pictures: int, count: int = DRAWS, *, seed: int = 0) -> Ints:
    """`[count, N]`: how often each picture is drawn when N are, with replacement."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(pictures, np.full(pictures, 1 / max(pictures, 1)), size=count).astype(np.int64)


def resampled(
    tables: Tables,
    kind: Kind,
    weights: Ints,
    *,
    classes: int,
    limit: int = 100,
    area: tuple[float, float] = AREAS[0],
    ious: Floats = IOUS,
) -> Floats:
    """AP `[B, T, K]` of each draw, IoU threshold and class; NaN where a class has nothing to measure.

    Nothing is matched again: what a detection took in its picture stays, and counts as often as the picture does.

    Args:
        weights: `[B, N]`, how often each picture counts.
    """
    ranking = Ranking(tables, kind, classes=classes, limit=limit)
    outcome = ranking.outcome(area, ious=ious)
    ap = np.full((len(weights), len(ious), classes), np.nan)
    edges = [np.searchsorted(ranking.place[taken.found], ranking.starts) for taken in outcome.taken]
    for k in range(classes):
        truths = tables.truth_picture[outcome.counts & (tables.truth_label == k)]
        if not len(truths):
            continue
        start, end = ranking.starts[k : k + 2]
        rows = ranking.order[start:end]
        step = max(1, AT_ONCE // max(len(rows), len(truths)))
        for first in range(0, len(weights), step):
            part = weights[first : first + step]
            count = part[:, truths].sum(1, keepdims=True).astype(np.float64)
            count[count == 0] = np.nan
            false = np.cumsum(part[:, tables.picture[rows]] * outcome.inside[rows], axis=1)
            for t, taken in enumerate(outcome.taken):
                here = slice(edges[t][k], edges[t][k + 1])
                found, right = taken.found[here], taken.right[here]
                often = part[:, tables.picture[found]]
                hits = np.cumsum(often * right, axis=1)[:, right]
                saved = np.cumsum(often * taken.inside[here], axis=1)[:, right]
                wrong = false[:, ranking.place[found[right]] - start] - saved
                ap[first : first + step, t, k] = average(hits, wrong, count)
    return ap


def average(hits: Ints, wrong: Ints, truths: Floats) -> Floats:
    """AP `[B]` as COCO has it, the mean of the best precision at 101 recalls.

    Args:
        hits, wrong: `[B, n]`, right and wrong detections so far, wherever something right was found.
        truths: `[B, 1]`, annotations; NaN gives NaN.
    """
    precision = hits / (wrong + hits + TINY)
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    reached = np.searchsorted(RECALLS, np.nan_to_num(hits / truths), side="right")
    steps = np.diff(reached, prepend=0, axis=1)
    return np.where(np.isnan(truths[:, 0]), np.nan, (best * steps).sum(1) / len(RECALLS))


def mean(ap: Floats) -> Floats:
    """`[B]`, over IoU thresholds and those classes that a draw measures; NaN where there are none."""
    measured = ~np.isnan(ap)
    count = measured.sum((1, 2))
    total = np.where(measured, ap, 0).sum((1, 2))
    return np.divide(total, count, out=np.full(len(ap), np.nan), where=count > 0)


def interval(value: float | None, drawn: Floats, *, least: float = 0.0) -> Interval:
    """`value` with its basic bootstrap interval of 95 %, from what was drawn `[B]`.

    AP of few pictures is too high on average, since it takes the best precision at each recall, and that of draws from
    them is higher still by about as much. So what the draws are above the figure lies below it in the interval. On
    made-up data of known AP this holds it in about 9 of 10 cases of 40 to 150 pictures, the draws' own middle 95 % in
    7 to 8.

    Args:
        least: of all possible values; 1 is the greatest.
    """
    drawn = drawn[~np.isnan(drawn)]
    if value is None or not len(drawn):
        return Interval(value)
    low, high = np.quantile(drawn, (0.025, 0.975)).tolist()
    return Interval(value, max(least, min(value, 2 * value - high)), min(1.0, max(value, 2 * value - low)))
