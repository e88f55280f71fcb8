"""A foreign config of which one key after another is taken; what is left over has no counterpart."""

from __future__ import annotations

from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from toolkit.errors import UserError
from toolkit.migrate.chain import Tree, Value, flat


class Config:
    """The values of a config by dotted key."""

    def __init__(self, tree: Tree, path: Path) -> None:
        self.path = path
        self._values: dict[str, Value] = dict(flat(tree))
        self._taken: set[str] = set()
        self._notes: dict[str, str] = {}
        self._lost: list[str] = []

    def peek(self, key: str, default: Any = None) -> Any:
        """The value, which counts as not seen."""
        return self._values[key].value if key in self._values else default

    def take(self, key: str, default: Any = None) -> Any:
        """The value, which has a counterpart."""
        self._taken.add(key)
        return self.peek(key, default)

    def take_number(self, key: str) -> Any:
        """The number, None where there is none. Raises UserError for something else."""
        value = self.take(key)
        return value if value is None else number(value, self._values[key].place, key)

    def take_list(self, key: str) -> list[tuple[Any, str]]:
        """The elements with their places; one for a value that is no list, none for a key that is not there."""
        self._taken.add(key)
        if key not in self._values:
            return []
        found = self._values[key]
        if not isinstance(found.value, list):
            return [(found.value, found.place)]
        return list(zip(found.value, found.places, strict=True))

    def drop(self, pattern: str) -> None:
        """Take all keys of a pattern (`TestReader.*`), which say nothing of the training."""
        self._taken.update(key for key in self._values if fnmatchcase(key, pattern))

    def note(self, key: str, text: str) -> None:
        """Say of a key that stays what holds instead."""
        self._notes[key] = text
        self._taken.discard(key)

    def lose(self, place: str, text: str) -> None:
        """Say of a part of a value that it has no counterpart."""
        self._lost.append(f"{place}: {text}")

    def lost(self) -> list[str]:
        """A line for all that has no counterpart: `file:line: key: value`."""
        left = [
            f"{value.place}: {key}: {_short(value.value)}" + (f" ({self._notes[key]})" if key in self._notes else "")
            for key, value in self._values.items()
            if key not in self._taken
        ]
        return [*left, *self._lost]


def number(value: Any, place: str, key: str) -> Any:
    """`value`, if it is a number, also one such as 1e-4, which YAML 1.1 takes for a text. Raises UserError."""
    if isinstance(value, str):
        with suppress(ValueError):
            return float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise UserError(f"{place}: {key}: must be a number (is: {value!r:.60})")
    return value


def _short(value: Any) -> str:
    text = "" if value is None else str(value)
    return text if len(text) <= 160 else f"{text[:157]}..."
