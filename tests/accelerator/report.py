"""The file that a user attaches to an issue."""

from __future__ import annotations

import datetime
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest


@dataclass
class Report:
    """What was checked, how it went, and what was measured, as Markdown.

    Args:
        hidden: folders, and what stands for them in the text.
    """

    path: Path
    hidden: dict[Path, str]
    about: dict[str, str]
    checks: list[tuple[str, str, str, float]] = field(default_factory=list)
    """Name, outcome, what there is to say, seconds."""
    speeds: list[dict[str, str]] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    _seconds: float = 0.0

    def take(self, title: str, result: pytest.TestReport) -> None:
        """Note the outcome of one check, with what it said through `record_property("said", ...)`; write the file."""
        self._seconds = result.duration + (0.0 if result.when == "setup" else self._seconds)
        if result.passed and result.when != "call":
            return
        said = [str(value) for key, value in result.user_properties if key == "said"]
        if result.skipped and isinstance(result.longrepr, tuple):
            said.append(result.longrepr[2].removeprefix("Skipped: "))
        if result.failed:
            text = result.longreprtext
            self.failures[title] = text
            said.append(text.splitlines()[-1] if text else "")
        self.checks.append((title, result.outcome, "; ".join(said), self._seconds))
        self.write()

    def write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(self.text(), encoding="utf-8")

    def text(self) -> str:
        outcomes = Counter(outcome for _, outcome, _, _ in self.checks)
        count = ", ".join(f"{outcomes[outcome]} {outcome}" for outcome in ("passed", "failed", "skipped"))
        lines = [
            f"# seg-tune on {self.about['device']}: {count}",
            "",
            f"{datetime.datetime.now(tz=datetime.timezone.utc):%Y-%m-%d %H:%M} UTC",
            "",
            *_table(("", ""), [(key, value) for key, value in self.about.items()]),
            "",
            "## Checks",
            "",
            *_table(
                ("check", "outcome", "seconds", ""),
                [(name, outcome, f"{took:.0f}", said) for name, outcome, said, took in self.checks],
            ),
        ]
        if self.speeds:
            rows = [tuple(row.values()) for row in self.speeds]
            lines += ["", "## Throughput", "", *_table(tuple(self.speeds[0]), rows)]
        for name, failure in self.failures.items():
            lines += ["", f"## Failed: {name}", "", "```", failure, "```"]
        text = "\n".join(lines) + "\n"
        for folder, name in self.hidden.items():
            text = text.replace(str(folder), name)
        return text


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    cells = [head, ("---",) * len(head), *rows]
    return ["| " + " | ".join(re.sub(r"\s+", " ", cell).replace("|", "\\|") for cell in row) + " |" for row in cells]
