"""Installations in fresh environments; needs a package index."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

STUB = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "paddlepaddle-gpu"
version = "3.3.1"
[tool.hatch.build.targets.wheel]
packages = ["paddle"]
"""


@pytest.mark.slow
def test_a_gpu_build_of_paddle_is_left_alone(tmp_path: Path) -> None:
    stub, folder = tmp_path / "stub", tmp_path / "venv"
    (stub / "paddle").mkdir(parents=True)
    (stub / "paddle" / "__init__.py").write_text("BUILD = 'of the user'\n", encoding="utf-8")
    (stub / "pyproject.toml").write_text(STUB, encoding="utf-8")
    venv.create(folder, with_pip=True)
    python = str(folder / ("Scripts" if sys.platform == "win32" else "bin") / "python")
    for what in (str(stub), f"{ROOT}[train-gpu]"):
        subprocess.run([python, "-m", "pip", "install", "-q", what], check=True)
    code = "import paddle, importlib.metadata as m; print(paddle.BUILD, [d.name for d in m.distributions()])"
    found = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.startswith("of the user")
    assert "paddlepaddle-gpu" in found
    assert "'paddlepaddle'" not in found
