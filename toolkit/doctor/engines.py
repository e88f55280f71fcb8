"""Paddle, ONNX Runtime and OpenVINO: their builds, their devices, and whether they compute; NumPy and OpenCV too, which
break in the same ways."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from toolkit.doctor.packages import GPU_INDEX, NAME, PIP, find_owners, has_nvidia_driver
from toolkit.doctor.places import TEMPORARY_FIX
from toolkit.doctor.report import Check, Found, one_line

TIMEOUT = 60.0
"""Seconds for a library to be imported and to compute. Both take about two; a cold disk can take much longer."""
NEWEST_FOR_PADDLE = (3, 13)


@dataclass(frozen=True)
class Library:
    """A native library that is probed, by the name of its module."""

    module: str
    title: str
    added_by: str
    """What pip installs it with."""
    is_engine: bool = True

    @property
    def check(self) -> str:
        return f"{'engine' if self.is_engine else 'library'} {self.module}"

    @property
    def install(self) -> str:
        return f'pip install "{self.added_by}"'


LIBRARIES = (
    Library("numpy", "NumPy", NAME, is_engine=False),
    Library("cv2", "OpenCV", NAME, is_engine=False),
    Library("onnxruntime", "ONNX Runtime", NAME),
    Library("openvino", "OpenVINO", f"{NAME}[openvino]"),
    Library("paddle", "Paddle", f"{NAME}[train]"),
)


def look_at_engines(*, timeout: float = TIMEOUT) -> Found:
    """Probe all libraries, each in a process of its own and all at once."""
    with ThreadPoolExecutor(len(LIBRARIES)) as pool:
        found = list(pool.map(lambda library: probe(library.module, timeout=timeout), LIBRARIES))
    facts = {library.module: one for library, one in zip(LIBRARIES, found, strict=True)}
    checks = []
    for library in LIBRARIES:
        check = _of_library(library, facts[library.module])
        # All others need NumPy: to install them again would not help.
        blameless = library.module != "numpy" and facts[library.module]["state"] == "broken"
        checks.append(replace(check, fix=()) if blameless and facts["numpy"]["state"] != "works" else check)
    paddle = facts["paddle"]
    if paddle["state"] == "works" and paddle["build"] == "cpu" and has_nvidia_driver():
        text = "an NVIDIA driver is here, but this build of Paddle runs on the CPU alone"
        install = f'{PIP} install "paddlepaddle-gpu=={paddle["version"]}" -i {GPU_INDEX}'
        checks.append(Check("paddle build", "warning", text, (f"{PIP} uninstall -y paddlepaddle", install)))
    return checks, facts


def probe(module: str, *, timeout: float = TIMEOUT) -> dict[str, Any]:
    """What the library says in a process of its own. `state` is `works`, `missing` or `broken`, with `error`."""
    # As this process finds modules, wherever it was started.
    code = f"import sys; sys.path[:] = {sys.path!r}; from toolkit.doctor.probe import main; main({module!r})"
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        return {"state": "broken", "error": f"no answer within {timeout:.0f} s"}
    except OSError as error:
        return {"state": "broken", "error": f"no process could be started: {error}"}
    try:
        found = json.loads(done.stdout)
    except ValueError:
        return {"state": "broken", "error": f"{_ending(done.returncode)}: {_last_line(done.stderr)}"}
    return found if isinstance(found, dict) else {"state": "broken", "error": "no answer"}


def _of_library(library: Library, found: dict[str, Any]) -> Check:
    if found["state"] == "works":
        return Check(library.check, "ok", _described(library, found))
    owners = find_owners(library.module)
    if found["state"] == "missing" and not owners:
        return _missing(library)
    if found["state"] == "missing":
        both = " and ".join(f"{owner} {version}" for owner, version in owners.items())
        return Check(library.check, "error", f"{both} is recorded as installed, but its files are gone", _again(owners))
    text = f"{library.title} does not work: {one_line(found['error'])}"
    if "No usable temporary directory" in found["error"]:
        return Check(library.check, "error", text, TEMPORARY_FIX)
    return Check(library.check, "error", text, _again(owners) or (library.install,))


def _described(library: Library, found: dict[str, Any]) -> str:
    text = f"{library.title} {found['version']}"
    if "build" in found:
        text += f", {_build(found)} build"
    if "devices" in found:
        text += f"; devices: {', '.join(found['devices']) or 'none'}"
    return f"{text}; computed in {found['seconds']:.2f} s"


def _missing(library: Library) -> Check:
    text = f"{library.title} is not installed"
    if library.module == "paddle" and sys.version_info[:2] > NEWEST_FOR_PADDLE:
        text += f"; version 3.3 has no wheels for Python beyond {'.'.join(map(str, NEWEST_FOR_PADDLE))}"
    return Check(library.check, "ok" if library.is_engine else "error", text, (library.install,))


def _again(owners: dict[str, str]) -> tuple[str, ...]:
    return tuple(f'{PIP} install --force-reinstall --no-deps "{owner}=={version}"' for owner, version in owners.items())


def _build(found: dict[str, Any]) -> str:
    if found["build"] == "cuda":
        return f"CUDA {found['cuda']}"
    return str(found["build"]).upper()


def _ending(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"crashed with {signal.Signals(-code).name}"
    except ValueError:
        return f"crashed with signal {-code}"


def _last_line(text: bytes) -> str:
    lines = text.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
