"""Paddle, ONNX Runtime and OpenVINO: their builds, their devices, and whether they compute."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from toolkit.doctor.packages import GPU_INDEX, NAME, PIP, find_owners, has_nvidia_driver
from toolkit.doctor.places import TEMPORARY_FIX
from toolkit.doctor.report import Check, Found, one_line

TIMEOUT = 60.0
"""Seconds for an engine to be imported and to compute. Both take about two; a cold disk can take much longer."""
ADDED_BY = {"onnxruntime": NAME, "openvino": f"{NAME}[openvino]", "paddle": f"{NAME}[train]"}
"""The engines, and what pip installs them with."""
NEWEST_FOR_PADDLE = (3, 13)
_DISTRIBUTIONS = {"paddle": "paddlepaddle"}
_TITLES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "paddle": "Paddle"}


def look_at_engines(*, timeout: float = TIMEOUT) -> Found:
    """Probe all engines, each in a process of its own and all at once."""
    with ThreadPoolExecutor(len(ADDED_BY)) as pool:
        facts = dict(zip(ADDED_BY, pool.map(lambda name: probe(name, timeout=timeout), ADDED_BY), strict=True))
    checks = [_of_engine(name, found) for name, found in facts.items()]
    paddle = facts["paddle"]
    if paddle["state"] == "works" and paddle["build"] == "cpu" and has_nvidia_driver():
        text = "an NVIDIA driver is here, but this build of Paddle runs on the CPU alone"
        install = f'{PIP} install "paddlepaddle-gpu=={paddle["version"]}" -i {GPU_INDEX}'
        checks.append(Check("paddle build", "warning", text, (f"{PIP} uninstall -y paddlepaddle", install)))
    return checks, facts


def probe(name: str, *, timeout: float = TIMEOUT) -> dict[str, Any]:
    """What the engine says in a process of its own. `state` is `works`, `missing` or `broken`, with `error`."""
    # As this process finds modules, wherever it was started.
    code = f"import sys; sys.path[:] = {sys.path!r}; from toolkit.doctor.probe import main; main({name!r})"
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


def _of_engine(name: str, found: dict[str, Any]) -> Check:
    title, install = _TITLES[name], f'pip install "{ADDED_BY[name]}"'
    if found["state"] == "works":
        build = f", {_build(found)} build" if name == "paddle" else ""
        devices = ", ".join(found["devices"]) or "none"
        return Check(
            f"engine {name}",
            "ok",
            f"{title} {found['version']}{build}; devices: {devices}; computed in {found['seconds']:.2f} s",
        )
    if found["state"] == "missing":
        owners = find_owners(name, [_DISTRIBUTIONS.get(name, name)])
        if not owners:
            text = f"{title} is not installed"
            if name == "paddle" and sys.version_info[:2] > NEWEST_FOR_PADDLE:
                text += f"; version 3.3 has no wheels for Python beyond {'.'.join(map(str, NEWEST_FOR_PADDLE))}"
            return Check(f"engine {name}", "ok", text, (install,))
        both = " and ".join(f"{owner} {version}" for owner, version in owners.items())
        text = f"{both} is recorded as installed, but its files are gone"
        return Check(f"engine {name}", "error", text, _again(owners))
    text = f"{title} does not work: {one_line(found['error'])}"
    if "No usable temporary directory" in found["error"]:
        return Check(f"engine {name}", "error", text, TEMPORARY_FIX)
    owners = find_owners(name, [_DISTRIBUTIONS.get(name, name)])
    return Check(f"engine {name}", "error", text, _again(owners) or (install,))


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
