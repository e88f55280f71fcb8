"""Findings, kept as rows of a file's lists, so that a million of them take little room."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from toolkit.data.findings.table import CODES, Code, Lang
from toolkit.errors import UserError

Rows = Sequence[int] | NDArray[np.signedinteger[Any]]


class Entries(Protocol):
    """What findings need to know of an annotation file."""

    split: str
    path: Path
    sections: dict[str, list[dict[str, Any]]]

    def picture_of(self, section: str, row: int) -> int | None: ...


@dataclass(frozen=True)
class Finding:
    """One thing found."""

    code: Code
    split: str
    file: Path
    section: str
    """`images`, `categories`, `annotations`, or empty for the file as a whole."""
    row: int
    """Index in that list."""
    id: Any
    key: str
    picture: int | None
    """Index of the picture that it is seen in."""
    values: dict[str, Any]

    @property
    def path(self) -> str:
        """JSON path, as `annotations[12].segmentation`."""
        entry = f"{self.section}[{self.row}]" if self.section else ""
        return f"{entry}.{self.key}" if self.key else entry

    @property
    def place(self) -> str:
        """Entry and id, as `annotations[12] id 34`."""
        entry = f"{self.section}[{self.row}]" if self.section else ""
        return entry if self.id is None else f"{entry} id {self.id}"

    def text(self, lang: Lang = "en") -> str:
        """What was found."""
        return " ".join(self.code.text[lang].format(**self.values).split())

    def line(self) -> str:
        """Place, rule and what to do, in one line."""
        place = f"{self.file}: {self.place}: " if self.section else f"{self.file}: "
        return f"{place}{self.text()}; {self.code.advice['en']}"

    def as_dict(self, lang: Lang = "en") -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "code": self.code.name,
            "severity": self.code.severity,
            "split": self.split,
            "file": str(self.file),
            "path": self.path,
            "id": self.id,
            "text": self.text(lang),
            "advice": self.code.advice[lang],
        }


@dataclass(frozen=True)
class Found:
    """Findings of one code in one file."""

    code: Code
    file: Entries
    section: str
    rows: Rows
    key: str
    values: dict[str, Any]
    """Lists and arrays hold a value for each row."""

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Finding]:
        return (self[i] for i in range(len(self.rows)))

    def __getitem__(self, i: int) -> Finding:
        row = int(self.rows[i])
        values = {key: _at(value, i) for key, value in self.values.items()}
        return Finding(
            code=self.code,
            split=self.file.split,
            file=self.file.path,
            section=self.section,
            row=row,
            id=self.file.sections[self.section][row].get("id") if self.section else None,
            key=self.key,
            picture=self.file.picture_of(self.section, row) if self.section else None,
            values=values,
        )


def _at(value: Any, i: int) -> Any:
    if isinstance(value, np.ndarray):
        return value[i].item()
    return value[i] if isinstance(value, list) else value


class Findings:
    """All that was found, in the order of the rules."""

    def __init__(self) -> None:
        self.found: list[Found] = []

    def add(
        self, code: str, file: Entries, section: str = "", rows: Rows = (0,), *, key: str = "", **values: Any
    ) -> None:
        """Note `code` at `rows` of `section`, or for the whole file; `values` fill the text, lists of them by row."""
        if len(rows):
            self.found.append(Found(CODES[code], file, section, rows, key, values))

    def __iter__(self) -> Iterator[Finding]:
        for found in self.found:
            yield from found

    def __len__(self) -> int:
        return sum(map(len, self.found))

    def by_code(self) -> dict[str, list[Found]]:
        """Findings by code, in the order of the table."""
        grouped: dict[str, list[Found]] = {}
        for found in self.found:
            grouped.setdefault(found.code.name, []).append(found)
        return {name: grouped[name] for name in CODES if name in grouped}

    def count(self, severity: str) -> int:
        """How many findings are that bad."""
        return sum(len(found) for found in self.found if found.code.severity == severity)

    def rows(self, code: str, file: Entries) -> list[int]:
        """Where in `file` the code was found."""
        return [int(r) for found in self.found if found.code.name == code and found.file is file for r in found.rows]

    def check(self) -> None:
        """Raise UserError for the kind of error found first."""
        errors = [found for found in self.found if found.code.severity == "error"]
        if errors:
            more = sum(len(found) for found in errors if found.code is errors[0].code) - 1
            raise UserError(errors[0][0].line() + (f" (and {more} more of this kind)" if more else ""))
