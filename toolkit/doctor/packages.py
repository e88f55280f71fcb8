"""Python, installed distributions, and what seg-tune requires of them."""

from __future__ import annotations

import contextlib
import platform
import re
import shlex
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from importlib.metadata import Distribution, PackageNotFoundError, distribution, distributions
from pathlib import Path
from typing import Literal

from toolkit.doctor.report import Check, Found, Status

NAME = "seg-tune"
OLDEST = (3, 10)
PIP = f"{shlex.quote(sys.executable or 'python')} -m pip"
"""Of this interpreter, whatever `pip` is on the path."""
GPU_INDEX = "https://www.paddlepaddle.org.cn/packages/stable/cu126/"
"""Where Paddle's builds for CUDA 12.6 are; other versions have folders beside it."""
_OWNERS = {
    "paddle": ("paddlepaddle", "paddlepaddle-*"),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "openvino": ("openvino",),
    "cv2": ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless"),
    "numpy": ("numpy",),
}
"""Modules, and the distributions that are known to own their folder; others may list it among their files."""
# GPU builds go by other names and put their files into the same folder: the last one installed wins in part.
_SHARED: dict[str, Status] = {"paddle": "error", "onnxruntime": "error", "cv2": "warning"}
"""How bad two owners are."""

State = Literal["installed", "missing", "other version"]


@dataclass(frozen=True)
class Requirement:
    """One distribution that seg-tune asks for."""

    name: str
    asked: str
    """Versions, as `>=3.3,<4`; empty for any."""
    extra: str | None
    """The extra that asks for it; None: all of seg-tune does."""
    installed: str | None
    state: State


def normalized(name: str) -> str:
    """Names of distributions are equal if these are (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def look_at_python() -> Found:
    """The interpreter."""
    facts = {
        "version": platform.python_version(),
        "implementation": platform.python_implementation(),
        "executable": sys.executable,
        "prefix": sys.prefix,
        "platform": platform.platform(),
        "virtual_environment": sys.prefix != sys.base_prefix,
    }
    text = f"{facts['implementation']} {facts['version']} at {sys.executable}, {facts['platform']}"
    if sys.version_info < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        return [Check("python", "error", f"{text}; seg-tune needs {oldest}", (f"use Python {oldest} or newer",))], facts
    return [Check("python", "ok", text)], facts


def look_at_owners() -> Found:
    """Folders of modules that more than one distribution owns."""
    owners = {folder: find_owners(folder) for folder in _SHARED}
    checks = [_of_owners(folder, owners[folder], status) for folder, status in _SHARED.items()]
    return [check for check in checks if check], owners


def _of_owners(folder: str, owners: dict[str, str], status: Status) -> Check | None:
    name = f"{folder} distributions"
    if len(owners) < 2:
        installed = "".join(f"{owner} {version}" for owner, version in owners.items())
        return Check(name, "ok", installed or "none installed") if folder == "paddle" else None
    both = " and ".join(f"{owner} {version}" for owner, version in owners.items())
    text = f"{both} are installed at once and have overwritten parts of each other's {folder}/"
    uninstall = f"{PIP} uninstall -y {' '.join(owners)}"
    if folder == "cv2":
        return Check(name, status, text, (uninstall, f"{PIP} install opencv-python-headless"))
    return Check(name, status, text, (uninstall, *_reinstall(folder, owners)))


def _reinstall(folder: str, owners: dict[str, str]) -> Iterator[str]:
    """What installs the build that this machine can use: with an NVIDIA driver that for GPUs, else that for the CPU."""
    plain = {"paddle": "paddlepaddle", "onnxruntime": "onnxruntime"}[folder]
    others = [owner for owner in owners if owner != plain]
    wanted = others[0] if has_nvidia_driver() and others else plain
    version = f"=={owners[wanted]}" if wanted in owners else ""
    index = f" -i {GPU_INDEX}" if wanted == "paddlepaddle-gpu" else ""
    yield f'{PIP} install "{wanted}{version}"{index}'


def has_nvidia_driver() -> bool:
    """Whether Linux has NVIDIA's driver loaded. Not run here."""
    return Path("/proc/driver/nvidia/version").exists() or Path("/dev/nvidiactl").exists()


def find_owners(module: str) -> dict[str, str]:
    """Distributions that own the folder of `module`, with their versions: those known to, and those that list it."""
    owners: dict[str, str] = {}
    for each in distributions():
        # Whatever is wrong with a distribution that is half there.
        with contextlib.suppress(Exception):
            name = normalized(each.metadata["Name"])
            if any(fnmatch(name, pattern) for pattern in _OWNERS[module]) or _lists(each, module):
                # The first one on the path is the one that is imported.
                owners.setdefault(name, each.version)
    return dict(sorted(owners.items()))


def _lists(one: Distribution, folder: str) -> bool:
    return f"\n{folder}/__init__.py," in f"\n{one.read_text('RECORD') or ''}"


def look_at_requirements() -> Found:
    """Whether what seg-tune and its extras ask for is installed in a version that they take."""
    try:
        found = list(read_requirements())
    except PackageNotFoundError:
        text = "seg-tune itself is not installed, so what it requires is unknown"
        return [Check("requirements", "warning", text, (f"pip install {NAME}",))], {}
    checks = []
    for extra in dict.fromkeys(one.extra for one in found):
        own = [one for one in found if one.extra == extra]
        checks.append(_of_extra(extra, own))
    return checks, {extra or "base": [asdict(one) for one in found if one.extra == extra] for extra in _extras(found)}


def _extras(found: Iterable[Requirement]) -> list[str | None]:
    return list(dict.fromkeys(one.extra for one in found))


def _of_extra(extra: str | None, found: list[Requirement]) -> Check:
    name = f"extra {extra}" if extra else "requirements"
    line = f'pip install "{NAME}[{extra}]"' if extra else f"pip install {NAME}"
    missing = [one.name for one in found if one.state == "missing"]
    wrong = [f"{one.name} {one.installed} (asked for: {one.asked})" for one in found if one.state == "other version"]
    said = [f"not installed: {', '.join(missing)}"] if missing else []
    said += [f"other versions than asked for: {', '.join(wrong)}"] if wrong else []
    if not said:
        return Check(name, "ok", f"{len(found)} of {len(found)} installed")
    if extra is None and missing:
        return Check(name, "error", "; ".join(said), (line,))
    return Check(name, "warning" if wrong else "ok", "; ".join(said), (line,))


def read_requirements() -> Iterator[Requirement]:
    """What the installed seg-tune asks for on this Python and system, of itself first, then extra by extra.

    Raises PackageNotFoundError where seg-tune is imported without being installed.
    """
    asked = distribution(NAME).requires or []
    extras = distribution(NAME).metadata.get_all("Provides-Extra") or []
    seen: set[tuple[str, str | None]] = set()
    for extra in (None, *extras):
        for text in asked:
            named = re.search(r"extra\s*==\s*['\"]([^'\"]+)['\"]", text)
            if (named.group(1) if named else None) != extra or not _applies(text, extra):
                continue
            one = _requirement(text, extra)
            # An extra that is made of others is seen in those.
            if normalized(one.name) != NAME and (one.name, extra) not in seen:
                seen.add((one.name, extra))
                yield one


def _requirement(text: str, extra: str | None) -> Requirement:
    name, asked = re.fullmatch(r"\s*([\w.-]+)\s*(?:\[[^\]]*\])?\s*\(?([^;)]*)\)?.*", text, re.DOTALL).groups()  # type: ignore[union-attr]
    asked = asked.strip()
    installed: str | None = None
    # Not there, or its metadata is broken.
    with contextlib.suppress(Exception):
        installed = distribution(name).version
    if not installed:
        return Requirement(name, asked, extra, None, "missing")
    return Requirement(name, asked, extra, installed, "installed" if _fits(installed, asked) else "other version")


def _applies(text: str, extra: str | None) -> bool:
    """Whether the marker behind a `;` holds here; without the package `packaging`, it is taken to hold."""
    try:
        from packaging.requirements import Requirement as Parsed
    except ImportError:
        return True
    marker = Parsed(text).marker
    return marker is None or marker.evaluate({"extra": extra or ""})


def _fits(version: str, asked: str) -> bool:
    """Whether the version is one of those asked for; without the package `packaging`, any is."""
    try:
        from packaging.specifiers import SpecifierSet
    except ImportError:
        return True
    with contextlib.suppress(ValueError):
        return SpecifierSet(asked).contains(version, prereleases=True)
    return True
