from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

import pytest

from toolkit.extras import EXTRAS, install_line, missing_module

PACKAGES = {"paddle": "paddlepaddle", "prometheus_client": "prometheus-client", "onnx": "paddle2onnx"}
"""What brings a module, where it has another name."""

WITHOUT = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
sys.argv = ["seg-tune", *{arguments}]
from toolkit.cli.main import main
main()
"""


def run_without(absent: set[str], arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """The command line in a Python that has not the modules `absent`."""
    code = WITHOUT.format(absent=absent, arguments=arguments)
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)


def required_by(extra: str | None) -> list[str]:
    """The packages that the installed seg-tune asks for; None: without any extra."""
    found = []
    for line in requires("seg-tune") or []:
        named = re.search(r"""extra == ['"](.*?)['"]""", line)
        if (named[1] if named else None) == extra:
            found.append(re.split(r"[<>=!~;\[ ]", line)[0])
    return found


@pytest.mark.parametrize("module", EXTRAS)
def test_each_module_is_brought_by_the_extra_that_is_named(module: str) -> None:
    package = PACKAGES.get(module, module)
    extra = "train-gpu" if EXTRAS[module] == "train" and module != "paddle" else EXTRAS[module]
    assert package in required_by(extra)


def test_without_extras_there_is_no_paddle() -> None:
    assert "onnxruntime" in required_by(None)
    assert not [name for name in required_by(None) if "paddle" in name]


def test_the_extra_for_a_paddle_of_ones_own_brings_none() -> None:
    assert "visualdl" in required_by("train-gpu")
    assert "paddlepaddle" not in required_by("train-gpu")


@pytest.mark.parametrize(
    ("absent", "arguments"),
    [
        ("paddle", ["train", "--model", "PP-YOLOE_seg-S", "--data", "."]),
        ("paddle", ["eval"]),
        ("paddle", ["export"]),
        ("paddle", ["lr-find", "--model", "PP-YOLOE_seg-S", "--data", "."]),
        ("paddle", ["quickstart"]),
        ("visualdl", ["train", "--model", "PP-YOLOE_seg-S", "--data", "."]),
        ("albumentations", ["review"]),
        ("fastapi", ["serve"]),
        ("uvicorn", ["serve"]),
        ("prometheus_client", ["serve"]),
    ],
)
def test_a_command_whose_extra_is_missing_says_the_line_that_installs_it(
    absent: str, arguments: list[str], tmp_path: Path
) -> None:
    done = run_without({absent}, arguments, tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"error: this needs {absent}, which is not installed; {install_line(absent)}")
    assert list(tmp_path.iterdir()) == []


def test_other_missing_modules_are_not_explained() -> None:
    assert missing_module(ModuleNotFoundError("No module named 'x'", name="x")) is None
    assert missing_module(ImportError("DLL load failed", name="paddle")) is None
