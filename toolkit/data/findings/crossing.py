"""Which polygons cross themselves, for all polygons of a file at once."""

from __future__ import annotations

import numpy as np

from toolkit.data.findings.file import Flags, Floats, Ints
from toolkit.data.findings.geometry import blocks, successors

PAIRS = 2_000_000
"""Pairs of edges that are worked on at once."""
MOST_PAIRS = 20_000_000
"""Of one polygon; those with more are not looked at (outlines of a hundred thousand points in a scribble)."""
FAR = 1e6


def crossing(points: Floats, start: Ints) -> Flags:
    """bool `[m]`: two edges of the polygon cut each other. Edges that only touch do not count.

    Args:
        points: `[P, 2]`; polygon i is `points[start[i]:start[i + 1]]`.
    """
    result = np.zeros(len(start) - 1, np.bool_)
    for first, last in blocks(start):
        begin = start[first:last] - start[first]
        here = np.nan_to_num(points[start[first] : start[last]], nan=0.0, posinf=FAR, neginf=-FAR).clip(-FAR, FAR)
        polygon = np.repeat(np.arange(last - first), np.diff(np.append(begin, len(here))))
        hit = _crossing_edges(here, successors(here, begin), polygon)
        result[first + np.unique(polygon[hit])] = True
    return result


def _crossing_edges(a: Floats, b: Floats, polygon: Ints) -> Ints:
    """Edges from `a` to `b` that cut another one of their polygon."""
    low, high = np.minimum(a[:, 0], b[:, 0]), np.maximum(a[:, 0], b[:, 0])
    # Side by side in x, polygons do not meet; sorted, the edges that overlap one in x follow it.
    offset = polygon * (high.max() - low.min() + 1) - low.min()
    order = np.argsort(low + offset)
    keys = (low + offset)[order]
    count = np.searchsorted(keys, (high + offset)[order], side="right") - np.arange(len(keys)) - 1
    owner = polygon[order]
    count[np.bincount(owner, count)[owner] > MOST_PAIRS] = 0
    bottom, top = np.minimum(a[:, 1], b[:, 1]), np.maximum(a[:, 1], b[:, 1])
    total = np.cumsum(count)
    hits = []
    done = 0
    while done < len(count):
        until = max(int(np.searchsorted(total, (total[done - 1] if done else 0) + PAIRS, side="right")), done + 1)
        some = count[done:until]
        i = np.repeat(np.arange(done, until), some)
        j = i + 1 + np.arange(len(i)) - np.repeat(np.cumsum(some) - some, some)
        i, j = order[i], order[j]
        near = (bottom[i] <= top[j]) & (bottom[j] <= top[i])
        i, j = i[near], j[near]
        cut = (_side(a[i], b[i], a[j]) * _side(a[i], b[i], b[j]) < 0) & (
            _side(a[j], b[j], a[i]) * _side(a[j], b[j], b[i]) < 0
        )
        hits.append(i[cut])
        done = until
    return np.concatenate(hits) if hits else np.empty(0, np.int64)


def _side(a: Floats, b: Floats, p: Floats) -> Floats:
    """-1, 0 or 1: on which side of the line from `a` to `b` the point lies."""
    return np.sign((b[:, 0] - a[:, 0]) * (p[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (p[:, 0] - a[:, 0]))
