"""Worker processes that make things in order, ahead of their use."""

from __future__ import annotations

import mmap
import multiprocessing
import os
import pickle
import secrets
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2

from toolkit.errors import UserError

SHARED_MEMORY = Path("/dev/shm")
DEATHS = 3
"""So many deaths of processes with nothing made in between are more than bad luck."""
_DIED = "a process that prepares batches was ended from outside, most often for lack of memory"


@dataclass(frozen=True)
class Parcel:
    """A result on its way between processes: its arrays lie in shared memory, or where that is full in the parcel."""

    pickled: bytes
    sizes: list[int]
    block: str | None
    """Name of the shared memory."""
    inline: list[bytes]


class Workers:
    """`make` run in `count` processes; with 0 of them in this one.

    They start clean instead of as forks of a process in which Paddle's threads run. Arrays come back through shared
    memory; containers often have little of it, and then through pipes.

    Args:
        make: has to be picklable.
        say: takes a line about what goes otherwise than planned.
    """

    def __init__(self, make: Callable[[Any], Any], count: int, *, say: Callable[[str], None]) -> None:
        self._make, self._count, self._say = make, count, say
        self._pool: ProcessPoolExecutor | None = None
        self._said = False

    def map(self, items: Sequence[Any]) -> Iterator[Any]:
        """`make` of each item in order, with up to twice as many in the making as there are processes.

        Raises what `make` raises, and UserError if processes die one after the other.
        """
        pool = self._pool or (self._start() if self._count else None)
        if pool is None:
            yield from map(self._make, items)
            return
        left = deque(items)
        waiting: deque[tuple[Any, Future[Parcel]]] = deque()
        deaths = 0
        try:
            while left or waiting:
                try:
                    while left and len(waiting) <= 2 * self._count:
                        with main_hidden():
                            waiting.append((left[0], pool.submit(_work, left[0])))
                        left.popleft()
                    parcel = waiting[0][1].result()
                except BrokenProcessPool:
                    deaths += 1
                    # CPython's pool waits for one that it started just as another died, but does not end it.
                    for process in list(pool._processes.values()):
                        process.kill()
                    self.close()
                    if deaths == DEATHS:
                        raise UserError(f"{_DIED}; lower data.workers or the batch size") from None
                    self._say(f"{_DIED}; what it had in hand is made anew")
                    left.extendleft(item for item, _ in reversed(waiting))
                    _drop(waiting)
                    pool = self._start()
                    if pool is None:
                        yield from map(self._make, left)
                        return
                    continue
                waiting.popleft()
                deaths = 0
                yield self._open(parcel)
        finally:
            _drop(waiting)

    def close(self) -> None:
        """End the processes; `map` starts new ones."""
        if self._pool:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def _start(self) -> ProcessPoolExecutor | None:
        context = multiprocessing.get_context("spawn" if os.name == "nt" else "forkserver")
        if os.name != "nt":
            # Imports are done once, by the process that the workers are forks of.
            context.set_forkserver_preload([type(self._make).__module__])
        try:
            self._pool = ProcessPoolExecutor(
                self._count, mp_context=context, initializer=_begin, initargs=(self._make,)
            )
        except (OSError, ImportError, NotImplementedError) as error:
            self._say(f"worker processes cannot be started here ({error}); batches are prepared between the steps")
            self._count = 0
        return self._pool

    def _open(self, parcel: Parcel) -> Any:
        if parcel.inline and SHARED_MEMORY.is_dir() and not self._said:
            self._said = True
            size = sum(parcel.sizes) / 2**20
            self._say(
                f"{SHARED_MEMORY}: too small for batches of {size:.0f} MB; they take the slower way through pipes "
                "(in Docker, --shm-size sets it)"
            )
        return _unpack(parcel)


def _pack(value: Any) -> Parcel:
    buffers: list[pickle.PickleBuffer] = []
    pickled = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    parts = [buffer.raw() for buffer in buffers]
    sizes = [part.nbytes for part in parts]
    block = _allocate(sum(sizes))
    if block is None:
        return Parcel(pickled, sizes, None, [bytes(part) for part in parts])
    with (SHARED_MEMORY / block.name).open("r+b", buffering=0) as file:
        for part in parts:
            file.write(part)
    block.close()
    return Parcel(pickled, sizes, block.name, [])


def _allocate(size: int) -> SharedMemory | None:
    if not size or not SHARED_MEMORY.is_dir():
        return None
    try:
        block = SharedMemory(name=f"{prefix()}{secrets.token_hex(6)}", create=True, size=size)
    except OSError:
        return None
    try:
        # A file there takes its room when it is written to, and a process that finds none is killed.
        with (SHARED_MEMORY / block.name).open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, size)
    except OSError:
        block.close()
        block.unlink()
        return None
    return block


def prefix(training: int | None = None) -> str:
    """How the names of the blocks begin that belong to a training, by default to the one that this process is of."""
    process = multiprocessing.parent_process() or multiprocessing.current_process()
    return f"seg-tune-{training or process.pid}-"


def _unpack(parcel: Parcel) -> Any:
    if parcel.block is None:
        return pickle.loads(parcel.pickled, buffers=[bytearray(part) for part in parcel.inline])
    with (SHARED_MEMORY / parcel.block).open("r+b") as file:
        # The arrays keep this mapping, and with it the memory, for as long as they live.
        memory = memoryview(mmap.mmap(file.fileno(), 0))
    _unlink(parcel.block)
    parts, start = [], 0
    for size in parcel.sizes:
        parts.append(memory[start : start + size])
        start += size
    return pickle.loads(parcel.pickled, buffers=parts)


def _unlink(name: str) -> None:
    block = SharedMemory(name)
    block.unlink()
    block.close()


def _drop(waiting: deque[tuple[Any, Future[Parcel]]]) -> None:
    while waiting:
        _, future = waiting.popleft()
        if not future.cancel():
            future.add_done_callback(_discard)


def _discard(future: Future[Parcel]) -> None:
    if not future.cancelled() and future.exception() is None and (name := future.result().block):
        _unlink(name)


@contextmanager
def main_hidden() -> Iterator[None]:
    """A process that starts imports the script that runs, and so runs it again where it lacks a `__main__` guard;
    workers need nothing from it."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


# In the worker

_make: Callable[[Any], Any]


def _begin(make: Callable[[Any], Any]) -> None:
    global _make
    _make = make
    # Ctrl-C ends the training, which then ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # A training that is killed cannot say goodbye, and its workers would wait for it for ever.
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def _work(item: Any) -> Parcel:
    return _pack(_make(item))
