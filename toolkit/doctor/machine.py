"""The processor, and how much of the machine this process may use."""

from __future__ import annotations

import contextlib
import math
import os
import platform
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path

from toolkit.doctor.report import Check, Found

GIB = 2**30
LEAST_MEMORY = 4 * GIB
"""Below that, training is likely to be killed."""
LEAST_SHARED = 256 * 2**20
"""Batches of workers that prepare them; Docker gives 64 MB."""
_FLAGS = {
    "avx": "avx",
    "avx2": "avx2",
    "avx512": "avx512f",
    "avx512_vnni": "avx512_vnni",
    "avx512_bf16": "avx512_bf16",
    "amx_tile": "amx_tile",
    "amx_int8": "amx_int8",
    "amx_bf16": "amx_bf16",
    "neon": "asimd",
    "arm_bf16": "bf16",
    "arm_i8mm": "i8mm",
}
"""Names in the report, and in Linux's /proc/cpuinfo."""
_X86 = ("x86_64", "amd64")


@dataclass(frozen=True)
class Processor:
    """The kind of processor. A flag is None where the system does not tell."""

    name: str
    architecture: str
    flags: dict[str, bool | None]


@dataclass(frozen=True)
class Limits:
    """What the control groups (v1 or v2) of a container allow; None: no limit."""

    version: int | None
    """Of the control groups; None where there are none."""
    cpus: float | None
    memory_bytes: int | None
    memory_used_bytes: int | None


def look_at_processor() -> Found:
    """Instructions that engines use, by the system's own account."""
    found = read_processor()
    have = [name for name, there in found.flags.items() if there]
    text = f"{found.name} ({found.architecture}): {', '.join(have) or 'no vector instructions known'}"
    x86 = found.architecture.lower() in _X86
    if x86 and found.flags["avx"] is False:
        return [Check("processor", "warning", f"{text}; Paddle's builds need AVX", ())], asdict(found)
    if x86 and found.flags["avx2"] is False:
        return [Check("processor", "warning", f"{text}; without AVX2 everything takes several times longer")], asdict(
            found
        )
    return [Check("processor", "ok", text)], asdict(found)


def read_processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> Processor:
    """Of Linux; elsewhere as far as NumPy knows."""
    text = ""
    with contextlib.suppress(OSError):
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    listed = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    named = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    name = named.group(1) if named else platform.processor() or "unknown processor"
    if listed:
        known = set(listed.group(1).split())
        return Processor(name, platform.machine(), {key: flag in known for key, flag in _FLAGS.items()})
    features = _numpy_features()
    flags = {key: features.get(key.upper() if key != "avx512" else "AVX512F") for key in _FLAGS}
    return Processor(name, platform.machine(), flags)


def _numpy_features() -> dict[str, bool]:
    # Whatever is wrong with NumPy is said by the check of requirements.
    with contextlib.suppress(Exception):
        features = import_module("numpy._core._multiarray_umath").__cpu_features__
        return {str(key): bool(value) for key, value in features.items()}
    return {}


def look_at_cores() -> Found:
    """How many cores the machine has, and how many of them this process may use."""
    limits = read_limits()
    machine = os.cpu_count() or 1
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else machine
    usable = min(affinity, math.ceil(limits.cpus)) if limits.cpus else affinity
    threads = os.environ.get("OMP_NUM_THREADS")
    facts = {
        "machine": machine,
        "affinity": affinity,
        "cgroup_cpus": limits.cpus,
        "cgroup_version": limits.version,
        "usable": usable,
        "omp_num_threads": threads,
    }
    text = f"{usable} of {machine} usable"
    if limits.cpus and threads and threads.isdecimal() and int(threads) > usable:
        text += f"; the container grants {limits.cpus:g} cores' time, and {threads} threads would wait for each other"
        return [Check("cores", "warning", text, (f"export OMP_NUM_THREADS={usable}",))], facts
    return [Check("cores", "ok", text)], facts


def look_at_memory() -> Found:
    """Memory of the machine and of the container."""
    limits = read_limits()
    total, available = _memory()
    bounds = [bound for bound in (total, limits.memory_bytes) if bound is not None]
    usable = min(bounds, default=None)
    facts = {
        "total_bytes": total,
        "available_bytes": available,
        "cgroup_bytes": limits.memory_bytes,
        "cgroup_used_bytes": limits.memory_used_bytes,
        "cgroup_version": limits.version,
        "usable_bytes": usable,
    }
    if usable is None:
        return [Check("memory", "ok", "unknown on this system")], facts
    text = f"{usable / GIB:.1f} GB usable"
    if limits.memory_bytes is not None and usable == limits.memory_bytes:
        text += " (the container's limit)"
    if available is not None:
        text += f", {min(available, usable) / GIB:.1f} GB free"
    if usable < LEAST_MEMORY:
        fix = "give the container more memory, or train with a smaller --batch-size"
        return [Check("memory", "warning", f"{text}; little for training", (fix,))], facts
    return [Check("memory", "ok", text)], facts


def look_at_shared_memory(folder: Path = Path("/dev/shm")) -> Found:
    """The room for batches that worker processes pass on."""
    if not folder.is_dir():
        text = f"{folder}: not on this system; batches go through pipes"
        return [Check("shared memory", "ok", text)], {"folder": str(folder), "exists": False}
    usage = shutil.disk_usage(folder)
    writable = os.access(folder, os.W_OK | os.X_OK)
    facts = {
        "folder": str(folder),
        "exists": True,
        "writable": writable,
        "total_bytes": usage.total,
        "free_bytes": usage.free,
    }
    text = f"{folder}: {usage.total / GIB:.1f} GB, {usage.free / GIB:.1f} GB free"
    if not writable:
        return [Check("shared memory", "warning", f"{folder}: cannot be written; batches go through pipes")], facts
    if usage.free < LEAST_SHARED:
        fix = "docker run --shm-size=1g ..."
        return [Check("shared memory", "warning", f"{text}; large batches go through pipes", (fix,))], facts
    return [Check("shared memory", "ok", text)], facts


def _memory() -> tuple[int | None, int | None]:
    """Bytes of the machine, and how many of them are available."""
    known = {}
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            key, _, value = line.partition(":")
            known[key] = 1024 * int(value.split()[0])
    total = known.get("MemTotal")
    if total is None:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return total, known.get("MemAvailable")


def read_limits(*, proc: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> Limits:
    """The tightest limits of this process's control groups and those above them.

    A process may be told of a path that its container does not show; what is at the root is then its own group.
    https://docs.kernel.org/admin-guide/cgroup-v2.html, https://docs.kernel.org/admin-guide/cgroup-v1/index.html
    """
    paths = dict(_groups(proc))
    if (root / "cgroup.controllers").is_file():
        folders = list(_upwards(root, paths.get("", "/")))
        cpus = [_quota_v2(folder / "cpu.max") for folder in folders]
        return _limits(2, cpus, folders, limit="memory.max", used="memory.current")
    if (root / "memory").is_dir() or (root / "cpu").is_dir():
        folders = list(_upwards(root / "memory", paths.get("memory", "/")))
        cpus = [_quota_v1(folder) for folder in _upwards(root / "cpu", paths.get("cpu", "/"))]
        return _limits(1, cpus, folders, limit="memory.limit_in_bytes", used="memory.usage_in_bytes")
    return Limits(None, None, None, None)


def _limits(version: int, cpus: list[float | None], folders: list[Path], *, limit: str, used: str) -> Limits:
    # Without a limit, v1 has the largest number of whole pages.
    bounded = [(value, folder) for folder in folders if (value := _number(folder / limit)) and value < 2**60]
    memory, folder = min(bounded, default=(None, None))
    return Limits(
        version,
        min((value for value in cpus if value), default=None),
        memory,
        _number(folder / used) if folder else None,
    )


def _groups(proc: Path) -> Iterator[tuple[str, str]]:
    """The path of each v1 controller's group; that of v2 under the empty name."""
    with contextlib.suppress(OSError):
        for line in proc.read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            for controller in controllers.split(","):
                yield controller, path


def _upwards(root: Path, path: str) -> Iterator[Path]:
    folder = root / path.lstrip("/")
    if ".." not in folder.parts:
        while folder != root and root in folder.parents:
            yield folder
            folder = folder.parent
    yield root


def _quota_v2(file: Path) -> float | None:
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
        quota, period = file.read_text(encoding="ascii").split()
        return int(quota) / int(period)  # `max` is no number.
    return None


def _quota_v1(folder: Path) -> float | None:
    quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
    return quota / period if quota and period and quota > 0 else None


def _number(file: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        return int(file.read_text(encoding="ascii"))
    return None
