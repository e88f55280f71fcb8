from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.accelerator.report import Report


def outcome(outcome: Any, when: Any = "call", **more: Any) -> pytest.TestReport:
    values = {"longrepr": None, "duration": 1.4, **more}
    return pytest.TestReport("file::test", ("file", 1, "test"), {}, outcome=outcome, when=when, **values)


def test_a_report_says_what_passed_what_failed_and_why(tmp_path: Path) -> None:
    report = Report(
        tmp_path / "to" / "report.md", hidden={tmp_path: "WORK"}, about={"device": "gpu:0", "driver": "5|6"}
    )
    report.take("one", outcome("passed", "setup", duration=3.0))
    report.take("one", outcome("passed", user_properties=[("said", "mask AP 0.5"), ("other", "no")]))
    report.take("one", outcome("passed", "teardown"))
    report.take("two (O1)", outcome("skipped", "setup", longrepr=("file", 1, "Skipped: there is one gpu")))
    report.take("three", outcome("failed", "setup", longrepr=f"first line\nno {tmp_path}/file"))
    report.speeds.append({"model": "SOLOv2", "images/s": "7.5"})
    report.write()
    lines = report.path.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# seg-tune on gpu:0: 1 passed, 1 failed, 1 skipped"
    assert r"| driver | 5\|6 |" in lines
    assert "| one | passed | 4 | mask AP 0.5 |" in lines
    assert "| two (O1) | skipped | 1 | there is one gpu |" in lines
    assert "| three | failed | 1 | no WORK/file |" in lines
    assert "| SOLOv2 | 7.5 |" in lines
    assert lines[-4:] == ["```", "first line", "no WORK/file", "```"]
