"""The device, the commands and the report of the acceptance test; its options are in tests/conftest.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.accelerator.report import Report

ROOT = Path(__file__).parents[2]
TIMEOUT = 240
"""Seconds a process may take: some engines build a network first."""

_REPORT = pytest.StashKey[Report]()

Measure = Callable[..., Any]
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> str:
    from toolkit.device import available_devices

    asked, here = request.config.getoption("--device"), available_devices()
    if asked == "auto":
        asked = here[0] if len(here) == 1 else here[1]
    if asked not in here:
        pytest.exit(f"--device {asked}: not on this machine; possible here: {', '.join(here)}", returncode=2)
    return str(asked)


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("accelerator")


def _process(arguments: list[str], *, work: Path, **more: str) -> subprocess.CompletedProcess[str]:
    # tests/conftest.py keeps the processes of ordinary tests to one thread, and to slow instructions.
    environment = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "MKL_DEBUG_CPU_TYPE")}
    environment |= {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", **more}
    try:
        return subprocess.run(
            [sys.executable, *arguments], cwd=work, env=environment, capture_output=True, text=True, timeout=TIMEOUT
        )
    except subprocess.TimeoutExpired:
        pytest.fail(f"took longer than {TIMEOUT} seconds: {' '.join(arguments[:4])}", pytrace=False)


@pytest.fixture(scope="session")
def command(work: Path) -> Command:
    """`seg-tune` with these arguments; `fails`: the error that it has to end with, by default none."""

    def run(*arguments: str, fails: str | None = None) -> subprocess.CompletedProcess[str]:
        done = _process(["-m", "toolkit.cli.main", *arguments], work=work)
        if (fails is None and done.returncode != 0) or (fails is not None and fails not in done.stderr):
            tail = "\n".join((done.stdout + done.stderr).splitlines()[-25:])
            pytest.fail(f"seg-tune {arguments[0]} ended with {done.returncode}:\n{tail}", pytrace=False)
        return done

    return run


@pytest.fixture(scope="session")
def measure(work: Path, device: str) -> Measure:
    """What a function of tests/accelerator/measure.py returns for `device`; keywords in capitals: its environment."""

    def run(what: str, **arguments: Any) -> Any:
        environment = {key: arguments.pop(key) for key in list(arguments) if key.isupper()}
        told = json.dumps({"device": device, **arguments})
        done = _process(["-m", "tests.accelerator.measure", what, told], work=work, **environment)
        if done.returncode != 0:
            tail = "\n".join(done.stderr.splitlines()[-25:])
            pytest.fail(f"{what} {told} ended with {done.returncode}:\n{tail}", pytrace=False)
        return json.loads(done.stdout.splitlines()[-1])

    return run


@pytest.fixture(scope="session")
def report(request: pytest.FixtureRequest, device: str, work: Path, measure: Measure) -> Report:
    """The report, which is written anew after each check."""
    path = request.config.getoption("--report").resolve()
    written = Report(path, hidden={work: "WORK", Path.home(): "HOME"}, about=measure("about"))
    written.write()
    request.config.stash[_REPORT] = written
    return written


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Function) -> Iterator[None]:
    outcome = yield
    if written := item.config.stash.get(_REPORT, None):
        ids = f" ({item.callspec.id})" if hasattr(item, "callspec") else ""
        name = item.originalname.removeprefix("test_").replace("_", " ")
        written.take(f"{name}{ids}", outcome.get_result())


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if written := config.stash.get(_REPORT, None):
        terminalreporter.write_line(f"report: {written.path}")
