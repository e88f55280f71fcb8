"""Lines of the log are written by a thread: a log that nobody reads must not hold up the service."""

from __future__ import annotations

import logging
import os
import threading
import time
from contextlib import suppress
from queue import Full, Queue

LINES = 10_000
"""That wait to be written; more are dropped."""
PATIENCE = 2.0
"""Seconds that the end of the process waits for the last ones."""


class BackgroundHandler(logging.Handler):
    """Writes to a file descriptor, by default standard error."""

    def __init__(self, descriptor: int = 2) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._lines: Queue[bytes] = Queue(LINES)
        threading.Thread(target=self._write, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(Full):
            self._lines.put_nowait(f"{self.format(record)}\n".encode())

    def flush(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while self._lines.unfinished_tasks and time.monotonic() < deadline:
            time.sleep(0.005)

    def _write(self) -> None:
        while True:
            line = self._lines.get()
            # Not through sys.stderr, whose lock a stuck write would hold at the end of the process.
            with suppress(OSError):
                while line:
                    line = line[os.write(self._descriptor, line) :]
            self._lines.task_done()
