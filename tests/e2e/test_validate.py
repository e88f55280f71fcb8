"""`seg-tune validate` on the command line: find, report, mend, and train on what was mended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.data.findings.broken import Broken
from tests.data.test_repair import all_at_once
from tests.e2e.conftest import TINY, run_in


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("broken")
    all_at_once(folder / "my data").write()
    return folder


def test_a_dataset_with_errors_of_every_kind_is_mended_and_trained_on(broken: Path) -> None:
    said = run_in(broken, "validate", "my data", "--lang", "en", code=1)
    assert "check failed: training refuses this data" in said.stdout
    assert "polygon-crossing × " in said.stdout
    refused = run_in(broken, "train", "--model", "PP-YOLOE_seg-S", "--data", "my data", "--pretrained", "none", code=2)
    assert refused.stderr.startswith("error: my data/annotations/instance_")

    said = run_in(broken, "validate", "my data", "--fix", "mended", "--report", "report", "--lang", "zh")
    assert "检查未通过" in said.stdout
    assert "修复后的数据集：mended" in said.stdout
    assert (broken / "report" / "report.html").is_file()
    log = json.loads((broken / "mended" / "repair.json").read_text(encoding="utf-8"))
    assert len(log["changed"]) > 30
    assert len(log["left_out"]) > 30
    assert run_in(broken, "validate", "mended", "--lang", "en").stdout.count("check passed") == 1
    model = "PP-YOLOE_seg-S"
    trained = run_in(
        broken,
        *("train", "--model", model, "--data", "mended", "--pretrained", "none", "--epochs", "1", "--device", "cpu"),
        *("--batch-size", "16", "--set", f"model.options={json.dumps(TINY[model])}"),
        *("--set", "data.input_size=[64, 64]", "--set", "data.train_sizes=[]"),
    )
    assert "best mask AP" in trained.stderr


def test_json_holds_everything(broken: Path) -> None:
    tree = json.loads(run_in(broken, "validate", "my data", "--json", "--lang", "en", code=1).stdout)
    assert tree["passed"] is False
    assert tree["errors"] == sum(finding["severity"] == "error" for finding in tree["findings"]) > 50
    assert set(tree["findings"][0]) == {"code", "severity", "split", "file", "path", "id", "text", "advice"}
    assert tree["splits"]["train"]["classes"]


def test_the_models_view(tmp_path: Path) -> None:
    Broken(tmp_path / "data").write()
    said = run_in(tmp_path, "validate", "data", "--model", "Mask-RT-DETR-S", "--lang", "en")
    assert "Mask-RT-DETR-S can reach a mask AP of " in said.stdout
    tree = json.loads(run_in(tmp_path, "validate", "data", "--model", "Mask-RT-DETR-S", "--json").stdout)
    assert 0.9 < tree["ceiling"]["ap"] <= 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "--data"),
        (["nowhere"], "nowhere: no such folder"),
        (["data", "--model", "Mask-RTDETR-S"], "did you mean Mask-RT-DETR-S?"),
        (["data", "--fix", "out", "--max-images", "3"], "--max-images"),
        (["data", "--fix", "data"], "data: is part of the dataset"),
        (["data", "--report", "data/annotations"], "is part of the dataset"),
    ],
)
def test_one_line_says_what_to_do(tmp_path: Path, arguments: list[str], expected: str) -> None:
    Broken(tmp_path / "data").write()
    said = run_in(tmp_path, "validate", *arguments, code=2)
    assert said.stderr.startswith("error: ")
    assert said.stderr.count("\n") == 1
    assert expected in said.stderr


@pytest.mark.parametrize(("name", "lang"), [("zh_CN.UTF-8", "zh"), ("en_US.UTF-8", "en"), ("C", "en")])
def test_the_language_is_that_of_the_environment(monkeypatch: pytest.MonkeyPatch, name: str, lang: str) -> None:
    from toolkit.data.validate import language_of_environment

    monkeypatch.delenv("LC_ALL", raising=False)
    monkeypatch.delenv("LC_MESSAGES", raising=False)
    monkeypatch.setenv("LANG", name)
    assert language_of_environment() == lang


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_it_can_be_interrupted(tmp_path: Path) -> None:
    Broken(tmp_path / "data", times=400).write()
    command = [sys.executable, "-m", "toolkit.cli.main", "validate", "data", "--fix", "out"]
    # Where the tests run in the background, what they start inherits that SIGINT is ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, before)
    with process:
        while not (tmp_path / ".out.partial").is_dir() and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[1]
    assert process.returncode not in (0, None)
    assert "Traceback" not in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]
