"""A stream of items worked on by several threads, in order and with bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


def ordered(work: Callable[[Item], Outcome], items: Iterable[Item], *, threads: int) -> Iterator[Outcome]:
    """Yield `work(item)` for each of `items`, in their order.

    `items` is read in the caller's thread, as far ahead as keeps the threads at work: of what is begun and not yet
    yielded there are never more than twice as many as threads. What `work` raises is raised in its place. An iterator
    that is closed early begins nothing more, and its threads end with what they are at.
    """
    with ThreadPoolExecutor(threads) as pool:
        pending: deque[Future[Outcome]] = deque()
        try:
            for item in items:
                pending.append(pool.submit(work, item))
                if len(pending) == 2 * threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
