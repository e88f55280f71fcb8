"""Where the time goes: the code names its stages, and who asks gets their seconds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_seconds: ContextVar[dict[str, float] | None] = ContextVar("seconds", default=None)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """What runs inside is of this stage."""
    seconds = _seconds.get()
    start = time.perf_counter()
    try:
        yield
    finally:
        if seconds is not None:
            seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start


@contextmanager
def stages() -> Iterator[dict[str, float]]:
    """Yield the seconds of each stage that this thread goes through inside, summed up."""
    seconds: dict[str, float] = {}
    token = _seconds.set(seconds)
    try:
        yield seconds
    finally:
        _seconds.reset(token)
