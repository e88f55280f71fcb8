from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from toolkit.data.findings.crossing import crossing


def cuts(a, b, c, d) -> bool:
    """Whether the inner points of two edges meet, in whole numbers and so exactly."""

    def side(p, q, r) -> int:
        return int(np.sign((q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0])))

    return side(a, b, c) * side(a, b, d) < 0 and side(c, d, a) * side(c, d, b) < 0


def crosses(polygon: list[tuple[int, int]]) -> bool:
    edges = list(zip(polygon, polygon[1:] + polygon[:1], strict=True))
    return any(cuts(*one, *other) for one, other in itertools.combinations(edges, 2))


points = st.tuples(st.integers(-5, 12), st.integers(0, 12))


@given(st.lists(st.lists(points, min_size=3, max_size=9), min_size=1, max_size=6))
def test_it_agrees_with_all_pairs_of_edges(polygons):
    flat = np.array([point for polygon in polygons for point in polygon], float)
    start = np.cumsum([0, *map(len, polygons)])
    assert crossing(flat, start).tolist() == [crosses(polygon) for polygon in polygons]


def test_no_polygon_at_all_and_numbers_that_are_none():
    assert crossing(np.zeros((0, 2)), np.array([0])).tolist() == []
    strange = np.array([[np.nan, 1], [np.inf, 2], [3, 1e300]])
    assert crossing(strange, np.array([0, 3])).tolist() == [False]


def test_blocks_do_not_change_the_result(monkeypatch):
    rng = np.random.default_rng(0)
    counts = rng.integers(3, 30, 200)
    flat, start = rng.uniform(0, 100, (counts.sum(), 2)), np.concatenate([[0], np.cumsum(counts)])
    whole = crossing(flat, start)
    monkeypatch.setattr("toolkit.data.findings.geometry.BLOCK", 50)
    monkeypatch.setattr("toolkit.data.findings.crossing.PAIRS", 40)
    np.testing.assert_array_equal(crossing(flat, start), whole)
    assert 0 < whole.sum() < 200
