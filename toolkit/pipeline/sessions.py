"""The loaded models that a stream of pictures goes through, several at a time."""

from __future__ import annotations

from collections.abc import Sequence
from queue import SimpleQueue

from toolkit import cores
from toolkit.data.detections import Detections
from toolkit.data.preprocess import Prepared
from toolkit.pipeline.backends.engines import Backend, load_engine
from toolkit.pipeline.exported import Exported


class Sessions:
    """Backends that any number of threads may call; each of them is called by one at a time."""

    def __init__(self, backends: Sequence[Backend]) -> None:
        self.count = len(backends)
        self._free: SimpleQueue[Backend] = SimpleQueue()
        for backend in backends:
            self._free.put(backend)

    def __call__(self, batch: Sequence[Prepared], *, threshold: float) -> list[Detections]:
        """As `Backend.__call__`, once one is free."""
        backend = self._free.get()
        try:
            return backend(batch, threshold=threshold)
        finally:
            self._free.put(backend)


def share_of_cores(devices: Sequence[str]) -> int | None:
    """Threads for each of several `devices`, where they are parts of the CPU; None leaves them to the one there is."""
    return max(1, cores() // len(devices)) if len(devices) > 1 else None


def load_sessions(exported: Exported, first: Backend, *, devices: list[str]) -> Sessions:
    """`first`, which runs on the first of `devices`, and its like on the others.

    On the CPU alone, a backend that threads may share is loaded once more, with one thread, and called by as many as
    there are cores. That is faster than all cores for one picture after the other: no operator waits for its slowest
    thread, and reading, preparing and masks run beside the network.
    """
    if devices in (["cpu"], ["auto"]) and first.shared and cores() > 1:
        return Sessions([load_engine(exported, first.name, threads=1)] * cores())
    threads = share_of_cores(devices)
    others = [load_engine(exported, first.name, device=device, threads=threads) for device in devices[1:]]
    return Sessions([first, *others])
