"""Where pictures wait for the network: a bounded queue, batches of what waits, and an early no where it is too long."""

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

import numpy as np
from numpy.typing import NDArray

from toolkit.pipeline.inputs import Picture
from toolkit.pipeline.predictor import Pipeline, Threshold
from toolkit.pipeline.result import Result
from toolkit.serve import metrics
from toolkit.serve.limits import Limits, RefusedError

MEMORY = 0.9
"""Weight of what was before in the running mean of the seconds that a picture takes."""


@dataclass
class _Job:
    rgb: NDArray[np.uint8]
    threshold: Threshold | None
    arrived: float
    done: asyncio.Future[Result]


class Desk:
    """Hands pictures to the pipeline, which one thread of its own runs."""

    def __init__(self, pipeline: Pipeline, limits: Limits) -> None:
        self._pipeline, self._limits = pipeline, limits
        self._inside = 0
        self._seconds = 0.0
        self._waiting: deque[_Job] = deque()
        self._change = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="network", daemon=True)
        self._thread.start()

    @contextmanager
    def place(self, pictures: int = 1) -> Iterator[None]:
        """Room for so many pictures while the block runs.

        Raises RefusedError (503) where there is none, or where what is inside already would take longer than a request
        waits at most.
        """
        wait = self._inside * self._seconds
        if self._inside + pictures > self._limits.queue or wait > self._limits.seconds:
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

    async def find(self, pictures: Sequence[NDArray[np.uint8]], threshold: Threshold | None) -> list[Result]:
        """The instances of each picture `[H, W, 3]`, RGB.

        Raises RefusedError (503) if it does not come to them in time.
        """
        loop, now = asyncio.get_running_loop(), time.monotonic()
        jobs = [_Job(rgb, threshold, now, loop.create_future()) for rgb in pictures]
        with self._change:
            self._waiting.extend(jobs)
            self._change.notify()
        return list(await asyncio.gather(*(job.done for job in jobs)))

    def close(self) -> None:
        """End the thread once nothing waits any more."""
        with self._change:
            self._closed = True
            self._change.notify()
        self._thread.join()

    def _work(self) -> None:
        while taken := self._take():
            now = time.monotonic()
            jobs = []
            for job in taken:
                if now - job.arrived > self._limits.seconds:
                    _settle(job, RefusedError(503, "waited too long; come again", retry_after=1))
                else:
                    metrics.STAGE.labels("wait").observe(now - job.arrived)
                    jobs.append(job)
            if not jobs:
                continue
            metrics.BATCH.observe(len(jobs))
            results: Sequence[Any]
            try:
                pictures = [Picture(job.rgb, None) for job in jobs]
                results = self._pipeline.find(pictures, threshold=jobs[0].threshold)
            except Exception as error:  # The thread lives on; the request learns of it.
                results = [error] * len(jobs)
            each = (time.monotonic() - now) / len(jobs)
            metrics.STAGE.labels("network").observe(each)
            self._seconds = MEMORY * self._seconds + (1 - MEMORY) * each if self._seconds else each
            for job, result in zip(jobs, results, strict=True):
                _settle(job, result)

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
