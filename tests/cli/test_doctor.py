"""`seg-tune doctor` as it is run, in environments that are whole and in some that are not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def doctor(*paths: Path, python: str = sys.executable, code: int = 0, **environment: str) -> dict[str, Any]:
    """Run it with `paths` in front of all others; insist on its exit code; return its JSON."""
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (*paths, ROOT))), **environment}
    command = [python, "-m", "toolkit.cli.main", "doctor"]
    done = subprocess.run([*command, "--json"], env=variables, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return json.loads(done.stdout)


def checks(report: dict[str, Any]) -> dict[str, Any]:
    return {check["name"]: check for check in report["checks"]}


def test_a_healthy_machine() -> None:
    report = doctor()
    assert set(report) == {"schema", "seg_tune", "status", "checks", "facts"}
    assert report["status"] in ("ok", "warning")
    assert all(set(check) == {"name", "status", "text", "fix"} for check in report["checks"])
    assert all("\n" not in check["text"] for check in report["checks"])
    engines = report["facts"]["engines"]
    assert engines["onnxruntime"]["state"] == "works"
    assert "CPUExecutionProvider" in engines["onnxruntime"]["devices"]
    assert engines["paddle"]["state"] == "works"
    assert "cpu" in engines["paddle"]["devices"]
    assert report["facts"]["cores"]["usable"] >= 1
    assert report["facts"]["memory"]["usable_bytes"] > 2**28
    assert all(state in ("works", "missing") for state in (engine["state"] for engine in engines.values()))


def test_it_is_readable_too() -> None:
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "toolkit.cli.main", "doctor"]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=True, timeout=300)
    lines = done.stdout.splitlines()
    assert any(line.startswith("ok") and "engine onnxruntime" in line for line in lines)
    assert lines[-1].startswith("seg-tune ")


def test_two_paddles(tmp_path: Path) -> None:
    folder = tmp_path / "paddlepaddle_gpu-3.3.1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: paddlepaddle-gpu\nVersion: 3.3.1\n")
    report = doctor(tmp_path, code=1)
    assert report["status"] == "error"
    check = checks(report)["paddle distributions"]
    assert check["status"] == "error"
    uninstall, install = check["fix"]
    assert uninstall.endswith("pip uninstall -y paddlepaddle paddlepaddle-gpu")
    assert 'pip install "paddlepaddle' in install


def test_broken_engines_are_told_apart(tmp_path: Path) -> None:
    for name, code in {"onnxruntime": "import os; os.abort()", "openvino": "raise ImportError('no libtbb')"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(code)
    report = doctor(tmp_path, code=1)
    found = checks(report)
    assert "SIGABRT" in found["engine onnxruntime"]["text"]
    assert "no libtbb" in found["engine openvino"]["text"]
    assert found["engine paddle"]["status"] == "ok"


@pytest.mark.skipif(os.name == "nt", reason="links to the packages of this environment")
def test_without_paddle(tmp_path: Path) -> None:
    """A fresh environment with what predictions need."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    [site] = (tmp_path / "venv").glob("lib/python*/site-packages")
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        hidden = entry.name.lower().startswith(("paddle", "seg_tune", "_seg_tune", "__editable__", "_virtualenv"))
        if not hidden and entry.suffix != ".pth" and not (site / entry.name).exists():
            (site / entry.name).symlink_to(entry)
    metadata = site / "seg_tune-0.1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: seg-tune\nVersion: 0.1.0\nRequires-Dist: numpy>=1.26\n"
        'Requires-Dist: paddlepaddle>=3.3; extra == "train"\nProvides-Extra: train\n'
    )
    report = doctor(python=str(tmp_path / "venv" / "bin" / "python"))
    found = checks(report)
    assert found["engine paddle"]["text"].startswith("Paddle is not installed")
    assert found["engine paddle"]["fix"] == ['pip install "seg-tune[train]"']
    assert found["extra train"]["fix"] == ['pip install "seg-tune[train]"']
    assert report["facts"]["engines"]["onnxruntime"]["state"] == "works"
