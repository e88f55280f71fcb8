"""Containers: a read-only root, no home, a user without a name. Each command is run where it can hardly write."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.conftest import TINY
from tests.e2e.test_serve import free_port
from tests.sandbox import NOBODY, environment, missing, read_only_but, run
from toolkit.bundled import sample_dataset as bundled
from toolkit.data.prepare import sample_dataset

MODEL = "PP-YOLOE_seg-S"
ROOT = Path(__file__).parents[2]
TRAIN = (
    *("train", "--model", MODEL, "--pretrained", "none", "--epochs", "1", "--batch-size", "4", "--device", "cpu"),
    *("--set", f"model.options={json.dumps(TINY[MODEL])}", "--set", "data.input_size=[64, 64]"),
    *("--set", "data.train_sizes=[]"),
)


@dataclass(frozen=True)
class Place:
    """`out` can be written, `fixed`, which holds data and is the working folder, cannot."""

    fixed: Path
    out: Path
    within: tuple[str, ...]
    variables: dict[str, str]

    @property
    def data(self) -> Path:
        return self.fixed / "data"

    def seg_tune(self, *arguments: str, code: int = 0, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "toolkit.cli.main", *arguments]
        return run(self.within, command, cwd=cwd or self.fixed, variables=self.variables, code=code)


def _nobody(out: Path) -> tuple[tuple[str, ...], dict[str, str]]:
    (out / "tmp").mkdir()
    (out / "tmp").chmod(0o777)
    return NOBODY, environment(PYTHONPATH=str(ROOT), TMPDIR=str(out / "tmp"))


def _read_only(out: Path) -> tuple[tuple[str, ...], dict[str, str]]:
    home = out.with_name("home")
    home.mkdir()
    return read_only_but(out), environment(PYTHONPATH=str(ROOT), HOME=str(home))


PLACES: dict[str, Callable[[Path], tuple[tuple[str, ...], dict[str, str]]]] = {
    "a user without name and home": _nobody,
    "a read-only root, home and /tmp": _read_only,
}


@pytest.fixture(scope="module", params=PLACES)
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    # Not one of pytest's folders, which are for their owner alone.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        out, fixed = Path(folder) / "out", Path(folder) / "fixed"
        for each in (out, fixed):
            each.mkdir()
        out.chmod(0o777)
        within, variables = PLACES[request.param](out)
        if reason := missing(*within):
            pytest.skip(reason)
        sample_dataset(bundled(), fixed / "data", count=16)
        yield Place(fixed, out, within, variables)


@pytest.fixture(scope="module")
def trained(place: Place) -> Place:
    """Where a run has been trained and exported into the folder that can be written."""
    # In a working folder that can be written, nothing else appears: without a home, libraries make a folder named ~.
    place.seg_tune(*TRAIN, "--data", str(place.data), "--output", str(place.out / "runs"), cwd=place.out)
    place.seg_tune(
        *("export", "--run", str(place.out / "runs" / "latest"), "--output", str(place.out / "model")),
        *("--to-pipeline-config", str(place.out / "pipeline.yaml")),
    )
    return place


def test_commands_write_where_they_are_told_and_nowhere_else(trained: Place) -> None:
    out = trained.out
    run, images = str(out / "runs" / "latest"), str(trained.data / "images")
    trained.seg_tune("eval", "--run", run, "--output", str(out / "figures"), "--report", str(out / "report"))
    said = trained.seg_tune(
        *("predict", "--pipeline", str(out / "pipeline.yaml"), "--input", images, "--save-path", str(out / "found")),
        cwd=out,
    )
    assert said.stdout.count("instances") == 16
    assert (out / "figures" / "evaluate_result.json").is_file()
    assert (out / "report" / "report.html").is_file()
    assert len(list((out / "found").glob("*.json"))) == 16
    assert {path.name for path in out.iterdir()} - {"tmp"} == {
        *("runs", "model", "pipeline.yaml", "figures", "report", "found"),
    }
    assert [path.name for path in trained.fixed.iterdir()] == ["data"]


def test_a_service(trained: Place) -> None:
    port = free_port()
    command = [sys.executable, "-m", "toolkit.cli.main", "serve", "--pipeline", str(trained.out / "pipeline.yaml")]
    process = subprocess.Popen(
        [*trained.within, *command, "--port", str(port)],
        cwd=trained.fixed,
        env=trained.variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 60
        while not _ready(port):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as response:
            assert response.status == 200
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def _ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=30) as response:
            return bool(json.load(response)["errorCode"] == 0)
    except OSError:
        return False


# Commands refuse in the same way wherever it is that they cannot write.
@pytest.mark.parametrize("place", list(PLACES)[:1], indirect=True)
@pytest.mark.parametrize(
    ("arguments", "named", "advice"),
    [
        ((*TRAIN, "--data", "data"), "output: cannot be written", "--output"),
        (("eval", "--run", "RUN", "--output", "here"), "here: cannot be written", "--output"),
        (("eval", "--run", "RUN", "--output", "OUT", "--report", "here"), "here: cannot be written", "--report"),
        (("export", "--run", "RUN", "--output", "here"), "here: cannot be written", "--output"),
        (
            ("export", "--run", "RUN", "--output", "OUT", "--to-pipeline-config", "here.yaml"),
            ".: cannot be written",
            "--to-pipeline-config",
        ),
        (
            ("predict", "--pipeline", "OUT/pipeline.yaml", "--input", "data/images", "--save-path", "here"),
            "here: cannot be written",
            "--save-path",
        ),
        (("quickstart", "--device", "cpu"), "quickstart: cannot be written", "--output"),
    ],
    ids=["train", "eval", "eval --report", "export", "export config", "predict", "quickstart"],
)
def test_where_nothing_can_be_written_one_line_says_so(
    arguments: tuple[str, ...], named: str, advice: str, trained: Place
) -> None:
    out = str(trained.out)
    given = [one.replace("RUN", f"{out}/runs/latest").replace("OUT", out) for one in arguments]
    before = sorted(path.name for path in trained.out.iterdir())
    said = trained.seg_tune(*given, code=2)
    assert said.stdout == ""
    assert said.stderr.startswith(f"error: {named}")
    assert advice in said.stderr
    assert said.stderr.count("\n") == 1
    assert sorted(path.name for path in trained.out.iterdir()) == before


def test_a_run_that_cannot_be_written_is_not_resumed(trained: Place) -> None:
    """Its folder belongs to root, and lies on a read-only file system or is for root alone to write."""
    folder = trained.fixed.with_name("run of another")
    folder.mkdir(exist_ok=True)
    recipe = trained.out / "runs" / "latest" / "recipe.yaml"
    (folder / "recipe.yaml").write_text(recipe.read_text(encoding="utf-8"), encoding="utf-8")
    said = trained.seg_tune("train", "--resume", "--run", str(folder), code=2)
    assert said.stderr.startswith(f"error: {folder}: cannot be written")


def test_weights_go_to_temporary_files_or_where_they_are_told(place: Place) -> None:
    """A server that is not there: the folder is made before it is asked."""
    code = "from toolkit.cli.main import main; main()"
    command = [sys.executable, "-c", code, "weights", "fetch", MODEL]
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:1")
    variables = {**place.variables, **proxies}
    said = run(place.within, command, cwd=place.fixed, variables=variables, code=2)
    first, *others = said.stderr.splitlines()
    assert "cannot be written; weights are kept in" in first or "HOME" not in variables
    assert "cannot download" in said.stderr
    assert len(others) <= 2
    told = {**variables, "SEG_TUNE_CACHE": str(place.fixed / "cache")}
    said = run(place.within, command, cwd=place.fixed, variables=told, code=2)
    assert said.stderr.startswith(f"error: {place.fixed / 'cache'}: cannot be written; SEG_TUNE_CACHE names another")


def test_the_doctor_says_what_cannot_be_written(place: Place) -> None:
    report = json.loads(place.seg_tune("doctor", "--json").stdout)
    found = {check["name"]: check for check in report["checks"]}
    assert report["status"] == "warning"
    for name in ("home", "working folder", "cache"):
        assert found[name]["status"] == "warning", found[name]
    assert report["facts"]["engines"]["paddle"]["state"] == "works"
    assert os.listdir(place.fixed) == ["data"]  # noqa: PTH208
