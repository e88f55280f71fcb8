"""Figures for Prometheus, of all worker processes together."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

REQUESTS = Counter("segtune_requests", "Requests for instances, by HTTP status.", ["status"])
LATENCY = Histogram("segtune_request_seconds", "From a request's arrival to its answer.", buckets=SECONDS)
STAGE = Histogram(
    "segtune_stage_seconds",
    "Of a picture: wait, decode; of a batch: network; of a request: answer.",
    ["stage"],
    buckets=SECONDS,
)
BATCH = Histogram(
    "segtune_batch_pictures", "Pictures that went through the network together.", buckets=(1, 2, 4, 8, 16, 32)
)
INSIDE = Gauge("segtune_pictures_inside", "Pictures admitted and not yet answered.", multiprocess_mode="livesum")


def exposition() -> bytes:
    """All figures in Prometheus' text format."""
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if folder is None:
        return generate_latest() + _memory([os.getpid()])
    living = []
    for process in {int(file.stem.rpartition("_")[2]) for file in Path(folder).glob("*.db")}:
        if _lives(process):
            living.append(process)
        else:
            multiprocess.mark_process_dead(process, folder)
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry, folder)
    return generate_latest(registry) + _memory(living)


def _memory(processes: list[int]) -> bytes:
    """What each process holds, where the system tells it."""
    registry = CollectorRegistry()
    held = Gauge("segtune_resident_memory_bytes", "Of each worker process.", ["pid"], registry=registry)
    for process in processes:
        with suppress(OSError):
            pages = int(Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1])
            held.labels(process).set(pages * os.sysconf("SC_PAGE_SIZE"))
    return generate_latest(registry)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except OSError:
        return False
    return True
