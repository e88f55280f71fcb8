from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from toolkit.pipeline.ordered import ordered


def test_results_come_in_order_whoever_is_ready_first() -> None:
    def work(i: int) -> int:
        time.sleep(0.01 * (i % 3 == 0))
        return i * i

    assert list(ordered(work, range(40), threads=4)) == [i * i for i in range(40)]


def test_what_is_begun_is_bounded() -> None:
    drawn = 0

    def items() -> Iterator[int]:
        nonlocal drawn
        while True:
            drawn += 1
            yield drawn

    results = ordered(lambda i: i, items(), threads=3)
    for expected in range(1, 101):
        assert next(results) == expected
        assert drawn < expected + 6
    results.close()  # type: ignore[attr-defined]
    assert drawn < 107


def test_work_overlaps() -> None:
    barrier = threading.Barrier(3, timeout=5)
    assert list(ordered(lambda _: barrier.wait() >= 0, range(9), threads=3)) == [True] * 9


def test_an_exception_is_raised_in_its_place_and_ends_the_threads() -> None:
    def work(i: int) -> float:
        return 1 / (5 - i)

    before = threading.active_count()
    results = ordered(work, range(20), threads=2)
    assert [next(results) for _ in range(5)] == [1 / (5 - i) for i in range(5)]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert threading.active_count() == before
