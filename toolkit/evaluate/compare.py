"""Which of several models is better: the same pictures drawn again and again for all of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from toolkit.errors import UserError
from toolkit.evaluate.bootstrap import DRAWS, FEW, Interval, draws, interval, mean, resampled
from toolkit.evaluate.overlap import Bools, Floats
from toolkit.evaluate.tables import FILE, Tables, load_tables

Verdict = Literal["better", "worse", "open"]


@dataclass(frozen=True)
class Difference:
    """AP of a run less that of the first, on the same pictures."""

    ap: Interval
    pictures: int
    """That have objects of it."""

    @property
    def verdict(self) -> Verdict:
        """`open` where 0 lies in the interval, and of few pictures, whose draws hardly differ."""
        if self.ap.low is None or self.ap.high is None or self.pictures < FEW:
            return "open"
        return "better" if self.ap.low > 0 else "worse" if self.ap.high < 0 else "open"


@dataclass(frozen=True)
class Compared:
    """A run beside the first of the comparison."""

    name: str
    mask: Interval
    """AP of the masks; `box` of the boxes."""
    box: Interval
    by_class: dict[str, float | None]
    """AP of the masks."""
    against: Difference | None
    """None for the first."""
    against_by_class: dict[str, Difference]
    latency: float | None
    """Milliseconds a picture, of the fastest engine that agrees with the trained model; None where not exported."""
    engine: str | None
    megabytes: float | None
    """Of the exported weights; None where not exported."""

    def as_dict(self) -> dict[str, Any]:
        tree = asdict(self)
        if self.against is not None:
            tree["against"] |= {"verdict": self.against.verdict}
        for name, difference in self.against_by_class.items():
            tree["against_by_class"][name] |= {"verdict": difference.verdict}
        return tree


@dataclass(frozen=True)
class Comparison:
    runs: list[Compared]
    classes: list[str]
    pictures: int
    draws: int


def compare(folders: Sequence[Path]) -> Comparison:
    """Hold what evaluations left in `folders` against the first of them.

    Raises UserError for one that is not evaluated, or that was on other pictures or classes.
    """
    loaded = [load_tables(folder / FILE) for folder in folders]
    first, classes = loaded[0].tables, loaded[0].classes
    for folder, other in zip(folders[1:], loaded[1:], strict=True):
        if other.classes != classes:
            raise UserError(f"{folder}: its classes ({', '.join(other.classes):.200}) are not those of {folders[0]}")
        if not _same_truth(first, other.tables):
            raise UserError(
                f"{folder}: evaluated on other pictures or annotations than {folders[0]}; "
                "evaluate both on the same: `seg-tune eval --run RUN --data DATA`"
            )
    weights = draws(len(first.picture_ids))
    # The first row counts each picture once: it is the figure itself.
    weights = np.concatenate([np.ones_like(weights[:1]), weights])
    shown = first.shown(len(classes))
    drawn: list[Floats] = []
    compared = []
    for folder, one in zip(folders, loaded, strict=True):
        drawn.append(resampled(one.tables, "mask", weights, classes=len(classes), limit=one.limit))
        box = resampled(one.tables, "box", weights, classes=len(classes), limit=one.limit)
        against = _difference(drawn[-1], drawn[0], shown) if folder != folders[0] else None
        by_class = {name: mean(drawn[-1][:, :, [k]]) for k, name in enumerate(classes)}
        compared.append(
            Compared(
                name=folder.name,
                mask=_interval(mean(drawn[-1])),
                box=_interval(mean(box)),
                by_class={name: _known(ap[0]) for name, ap in by_class.items()},
                against=against,
                against_by_class={
                    name: _difference(drawn[-1][:, :, [k]], drawn[0][:, :, [k]], shown[:, [k]])
                    for k, name in enumerate(classes)
                }
                if against
                else {},
                **_speed(folder / "inference"),
            )
        )
    return Comparison(compared, classes, len(first.picture_ids), DRAWS)


def _same_truth(one: Tables, other: Tables) -> bool:
    names = ("picture_ids", "truth_picture", "truth_label", "truth_area", "truth_crowd")
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in names)


def _difference(ap: Floats, before: Floats, shown: Bools) -> Difference:
    return Difference(_interval(mean(ap) - mean(before), least=-1.0), int(np.count_nonzero(shown.any(axis=1))))


def _interval(values: Floats, *, least: float = 0.0) -> Interval:
    return interval(_known(values[0]), values[1:], least=least)


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _speed(exported: Path) -> dict[str, Any]:
    """What the certificate of an export says of its speed, and how large its weights are."""
    nothing = {"latency": None, "engine": None, "megabytes": None}
    try:
        backends: Mapping[str, Any] = json.loads((exported / "certificate.json").read_text(encoding="utf-8"))[
            "backends"
        ]
        times = {name: float(row["ms_per_picture"]) for name, row in backends.items() if row["holds"]}
        engine = min(times, key=times.__getitem__)
        size = (exported / "inference.pdiparams").stat().st_size / 1e6
    except (OSError, ValueError, KeyError, TypeError):
        return nothing
    return {"latency": times[engine], "engine": engine, "megabytes": round(size, 1)}
