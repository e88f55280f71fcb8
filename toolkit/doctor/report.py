"""What `seg-tune doctor` finds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Status = Literal["ok", "warning", "error"]
SCHEMA = 1
"""Of the JSON. It grows when a key goes or changes its meaning; new keys may come without that."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    """Stable, for programs."""
    status: Status
    text: str
    """One line for people."""
    fix: tuple[str, ...] = ()
    """Commands or settings that put it right, in this order; of something optional that is missing: what adds it."""


@dataclass(frozen=True)
class Report:
    """All checks, and the facts that they are drawn from, by the name of the check."""

    version: str
    checks: tuple[Check, ...]
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def status(self) -> Status:
        """The worst of the checks."""
        found = {check.status for check in self.checks}
        return next((status for status in ("error", "warning") if status in found), "ok")

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        checks = [asdict(check) for check in self.checks]
        return {
            "schema": SCHEMA,
            "seg_tune": self.version,
            "status": self.status,
            "checks": checks,
            "facts": self.facts,
        }


Found = tuple[Sequence[Check], Any]
"""What one look brings: its checks and its facts, which JSON can hold."""


def guarded(name: str, look: Callable[[], Found]) -> Found:
    """What `look` brings; if it fails, an error that says so, since the rest of the report is still wanted."""
    try:
        return look()
    except Exception as error:
        return [Check(name, "error", f"could not be checked: {type(error).__name__}: {one_line(error)}")], None


def one_line(message: object, *, limit: int = 300) -> str:
    """The message without line breaks, cut to `limit` characters."""
    text = " ".join(str(message).split())
    return text if len(text) <= limit else f"{text[:limit]}..."
