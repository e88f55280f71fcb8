"""The most memory that this process has needed."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

import paddle

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak() -> int:
    """Bytes at the highest since the last `forget`: of the accelerator in use, on the CPU of the process itself."""
    if _on_cuda():
        return int(paddle.device.cuda.max_memory_reserved())
    if _STATUS.is_file():
        for line in _STATUS.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    if os.name == "nt":
        return 0
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def forget() -> None:
    """Measure anew from here, where the system lets us."""
    if _on_cuda():
        paddle.device.cuda.reset_max_memory_reserved()
        return
    with suppress(OSError):
        _RESET.write_text("5", encoding="ascii")


def available() -> int | None:
    """Bytes that this process can have at most: of the accelerator in use, else of the machine or its container."""
    if _on_cuda():
        return int(paddle.device.cuda.get_device_properties().total_memory)
    limits = []
    with suppress(OSError, ValueError):
        limits.append(int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    with suppress(OSError, ValueError, AttributeError):
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return min(limits, default=None)


def _on_cuda() -> bool:
    return bool(paddle.device.get_device().startswith("gpu"))
