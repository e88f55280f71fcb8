"""Where pictures wait for the network: a bounded queue, batches of what waits, and an early no where it is too long.

They wait as files: of those that are decoded there are no more than threads.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from toolkit.pipeline.inputs import Picture
from toolkit.pipeline.predictor import Network, Pipeline, Threshold
from toolkit.pipeline.result import Result
from toolkit.serve import metrics
from toolkit.serve.limits import Limits, RefusedError, decode

MEMORY = 0.9
"""Weight of what was before in the running mean of the seconds that a picture takes."""
MARGIN = 0.5
"""Share of the time that a request may wait, up to which it is admitted: forecasts err, and who is admitted should
hardly ever be let go later."""
AHEAD = 2
"""Pictures that are decoded and prepared, or whose masks are made, while others are in the network."""


@dataclass
class _Job:
    file: bytes
    threshold: Threshold | None
    arrived: float
    done: asyncio.Future[Result]


class Desk:
    """Hands pictures to the pipeline, which threads of its own run.

    Args:
        seconds: what a picture takes, as far as is known.
    """

    def __init__(self, pipeline: Pipeline, limits: Limits, *, seconds: float = 0.0) -> None:
        self._pipeline, self._limits = pipeline, limits
        self._inside = 0
        self._seconds, self._last_done = seconds, 0.0
        self._waiting: deque[_Job] = deque()
        self._change = threading.Condition()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, name="network", daemon=True)
            for _ in range(pipeline.sessions.count + AHEAD)
        ]
        for thread in self._threads:
            thread.start()

    @contextmanager
    def place(self, pictures: int = 1) -> Iterator[None]:
        """Room for so many pictures while the block runs.

        Raises RefusedError (503) where there is none, or where what is inside already would take long.
        """
        wait = self._inside * self._seconds
        if self._inside + pictures > self._limits.queue or wait > MARGIN * self._limits.seconds:
            raise RefusedError(
                503, "too many requests are waiting; come again", retry_after=max(1, math.ceil(wait / 2))
            )
        self._inside += pictures
        metrics.INSIDE.inc(pictures)
        try:
            yield
        finally:
            self._inside -= pictures
            metrics.INSIDE.dec(pictures)

    async def find(self, files: Sequence[bytes], threshold: Threshold | None) -> list[Result]:
        """The instances of each picture.

        Raises RefusedError for a file that cannot be read, and (503) for one whose turn does not come in time.
        """
        loop, now = asyncio.get_running_loop(), time.monotonic()
        jobs = [_Job(file, threshold, now, loop.create_future()) for file in files]
        with self._change:
            self._waiting.extend(jobs)
            self._change.notify(len(jobs))
        return list(await asyncio.gather(*(job.done for job in jobs)))

    def close(self) -> None:
        """End the threads once nothing waits any more."""
        with self._change:
            self._closed = True
            self._change.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while jobs := self._take():
            started = time.monotonic()
            read = [(job, picture) for job in jobs if (picture := self._read(job, started))]
            if not read:
                continue
            metrics.BATCH.observe(len(read))
            results: Sequence[Any]
            try:
                with metrics.STAGE.labels("network").time():
                    results = self._pipeline.find(
                        [picture for _, picture in read], threshold=jobs[0].threshold, network=self._network()
                    )
            except Exception as error:  # The thread lives on; the request learns of it.
                results = [error] * len(read)
            self._note(started, len(read))
            for (job, _), result in zip(read, results, strict=True):
                _settle(job, result)

    def _read(self, job: _Job, now: float) -> Picture | None:
        """The job's picture; None if its request is answered already, since it is late or no picture."""
        try:
            if now - job.arrived > self._limits.seconds:
                raise RefusedError(503, "waited too long; come again", retry_after=1)
            metrics.STAGE.labels("wait").observe(now - job.arrived)
            with metrics.STAGE.labels("decode").time():
                return Picture(decode(job.file), None)
        except Exception as error:
            _settle(job, error)
            return None

    def _network(self) -> Network:
        # A picture by itself is done soonest with all cores; several, with a core each.
        alone = self._inside == 1 and self._pipeline.backend.shared
        return self._pipeline.backend if alone else self._pipeline.sessions

    def _note(self, started: float, pictures: int) -> None:
        """Take down what a picture took; where several are worked on, it is the time since the last one was done."""
        with self._change:
            now = time.monotonic()
            each = (now - max(started, self._last_done)) / pictures
            self._last_done = now
            self._seconds = MEMORY * self._seconds + (1 - MEMORY) * each if self._seconds else each

    def _take(self) -> list[_Job]:
        """The next jobs that can go through the network together; none when all is over."""
        with self._change:
            while not self._waiting and not self._closed:
                self._change.wait()
            jobs = [self._waiting.popleft()] if self._waiting else []
            while (
                self._waiting
                and len(jobs) < self._pipeline.batch_size
                and self._waiting[0].threshold == jobs[0].threshold
            ):
                jobs.append(self._waiting.popleft())
            return jobs


def _settle(job: _Job, result: Any) -> None:
    def settle() -> None:
        if job.done.done():  # Nobody waits any more.
            return
        if isinstance(result, Exception):
            job.done.set_exception(result)
        else:
            job.done.set_result(result)

    job.done.get_loop().call_soon_threadsafe(settle)
