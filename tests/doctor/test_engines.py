"""Engines that are broken in every way; `tests/cli/test_doctor.py` has whole ones."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from toolkit.doctor.engines import look_at_engines, probe


def put(folder: Path, name: str, code: str) -> None:
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(code)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import os; os.abort()", "crashed with SIGABRT"),
        ("import os; os._exit(3)", "ended with exit code 3"),
        ("raise ImportError('libGL.so.1: cannot open')", "ImportError: libGL.so.1: cannot open"),
        ("import nothing_of_this_name", "No module named 'nothing_of_this_name'"),
        ("raise SystemExit(1)", "SystemExit: 1"),
        ("print('{}')", "AttributeError"),
        ("(", "SyntaxError"),
    ],
)
def test_a_broken_import_is_reported(code: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "onnxruntime", code)
    monkeypatch.syspath_prepend(str(tmp_path))
    found = probe("onnxruntime")
    assert found["state"] == "broken"
    assert said in found["error"]


def test_an_engine_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "openvino", "import time; time.sleep(600)")
    monkeypatch.syspath_prepend(str(tmp_path))
    start = time.monotonic()
    assert probe("openvino", timeout=1.0) == {"state": "broken", "error": "no answer within 1 s"}
    assert time.monotonic() - start < 30


def test_a_broken_numpy_is_the_one_that_is_put_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "numpy", "raise RuntimeError('two\\nlines')")
    monkeypatch.syspath_prepend(str(tmp_path))
    checks, _ = look_at_engines()
    first, *others = checks
    assert (first.name, first.status) == ("library numpy", "error")
    assert first.text.endswith("RuntimeError: two lines")
    assert '"numpy==' in first.fix[0]
    assert all(not check.fix for check in others if check.status == "error")


WRONG = """
import numpy
__version__ = "1.0"
def get_available_providers():
    return []
class InferenceSession:
    def __init__(self, *given, **named): pass
    def run(self, *given): return [numpy.zeros((1, 3, 4, 4), numpy.float32)]
"""


def test_an_engine_that_computes_something_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "onnxruntime", WRONG)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "a convolution came out wrong" in probe("onnxruntime")["error"]


def test_files_that_are_gone_are_told_from_what_was_never_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Uninstalling one of two distributions takes the files of the other along."""
    (tmp_path / "paddlepaddle-3.3.1.dist-info").mkdir()
    (tmp_path / "paddlepaddle-3.3.1.dist-info" / "METADATA").write_text("Name: paddlepaddle\nVersion: 3.3.1\n")
    (tmp_path / "toolkit").symlink_to(Path(__file__).parents[2] / "toolkit")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *(path for path in sys.path if "site-packages" not in path)])
    checks, facts = look_at_engines()
    by_name = {check.name: check for check in checks}
    assert {name: found["state"] for name, found in facts.items()} == dict.fromkeys(facts, "missing")
    assert by_name["library numpy"].status == "error"
    assert by_name["engine paddle"].status == "error"
    assert by_name["engine paddle"].fix[0].endswith('--force-reinstall --no-deps "paddlepaddle==3.3.1"')
    assert by_name["engine openvino"].status == "ok"
    assert by_name["engine openvino"].fix == ('pip install "seg-tune[openvino]"',)
