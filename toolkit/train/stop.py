"""Leaving a run in good order: on Ctrl-C, on SIGTERM, and when its time is up."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Stopped(Exception):  # noqa: N818  # not an error
    """The run is to be saved and left; the message says why."""


class Stop:
    """Turns signals and a limit of time into `Stopped`, at the places where the run can be saved.

    Args:
        minutes: the limit of time from now on.
    """

    def __init__(self, minutes: float | None = None) -> None:
        self._end = time.monotonic() + 60 * minutes if minutes else None
        self._minutes = minutes
        self._signal: str | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Within this context the first SIGINT or SIGTERM only makes a note; a second Ctrl-C interrupts at once."""
        if threading.current_thread() is not threading.main_thread():
            yield  # Only the main thread may take signals, and gets them.
            return
        before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @property
    def reason(self) -> str | None:
        """Why to stop, or None to go on."""
        if self._signal:
            return self._signal
        if self._end is not None and time.monotonic() >= self._end:
            return f"the time limit of {self._minutes:g} minutes is reached"
        return None

    def check(self, gather: Callable[[str | None], list[str | None]] | None = None, *, in_time: bool = False) -> None:
        """Raises Stopped if there is a reason to; `in_time`: one other than the time.

        `gather` asks the other processes, so that all stop at the same step.
        What cannot be gone on with in its middle must be let finish, or runs with little time would never get past it.
        """
        reason = self._signal if in_time else self.reason
        for said in gather(reason) if gather else [reason]:
            if said:
                raise Stopped(said)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._signal = "interrupted" if number == signal.SIGINT else "asked to end (SIGTERM)"
