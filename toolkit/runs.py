"""The runs in a folder: listed, shown, compared, cleared of what is only needed to resume."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from toolkit.errors import UserError
from toolkit.run import Run

ENDED = ("completed", "stopped early")
"""How runs end that are not resumed."""


def all_runs(output: Path) -> list[Run]:
    """The runs in `output`, the oldest first.

    Raises UserError where there is none.
    """
    found = [Run(path.parent) for path in output.glob("*/recipe.yaml") if not path.parent.is_symlink()]
    if not found:
        raise UserError(f"{output}: no run in it; train one with `seg-tune train`, or name another --output")
    return sorted(found, key=lambda run: (run.recipe_file.stat().st_mtime_ns, run.path.name))


def run_named(name: str, output: Path) -> Run:
    """The run with this name in `output`, or at this path; `latest` is the newest."""
    path = output / name if (output / name).exists() else Path(name)
    return Run.find(None if name == "latest" else path, output=output)


def list_runs(output: Path, *, where: Sequence[str] = (), sort: str = "time") -> Table:
    """A row for each run: how far it came, how well it did, how it ended, how large it is.

    Args:
        where: `key=text` for facts of a run (see `facts_of`) that must hold the text; all of them.
        sort: `time`, the oldest first; or `ap`, `size`, the greatest first; or `model`.

    Raises UserError for an unknown fact.
    """
    runs = [(run, facts_of(run), _size(run)) for run in all_runs(output)]
    for condition in where:
        key, equals, text = condition.partition("=")
        if not equals or key not in runs[0][1]:
            raise UserError(f"--where {condition}: must be KEY=TEXT; keys are {', '.join(runs[0][1])}")
        runs = [entry for entry in runs if text.lower() in entry[1][key].lower()]
        if not runs:
            raise UserError(f"{output}: no run with {text} in {key}")
    if sort == "ap":
        runs.sort(key=lambda entry: _number(entry[1]["mask AP"]), reverse=True)
    elif sort == "size":
        runs.sort(key=lambda entry: entry[2], reverse=True)
    elif sort == "model":
        runs.sort(key=lambda entry: entry[1]["model"])
    table = Table()
    for heading in ("run", "model", "epochs", "mask AP", "ended", "size"):
        table.add_column(heading, justify="right" if heading in ("epochs", "mask AP", "size") else "left", no_wrap=True)
    for run, facts, size in runs:
        shown = (facts[key] for key in ("model", "epochs", "mask AP", "ended"))
        table.add_row(run.path.name, *shown, f"{size / 1e6:.1f} MB")
    return table


def _size(run: Run) -> int:
    return sum(file.stat().st_size for file in run.path.rglob("*") if file.is_file())


def _number(percent: str) -> float:
    return -1.0 if percent == "n/a" else float(percent)


def show_run(run: Run) -> Table:
    """What a run was, and what came of it."""
    table = Table(show_header=False)
    for key, value in facts_of(run).items():
        table.add_row(key, value)
    return table


def compare_runs(runs: Sequence[Run]) -> Table:
    """A column for each run: their results, and those settings in which they differ."""
    table = Table()
    table.add_column("")
    for run in runs:
        table.add_column(run.path.name, overflow="fold")
    facts = [facts_of(run) for run in runs]
    for key in facts[0]:
        table.add_row(key, *(fact[key] for fact in facts))
    table.add_section()
    settings = [_flat(run.recipe().model_dump(mode="json")) for run in runs]
    for key in dict.fromkeys(key for tree in settings for key in tree):
        values = [str(tree.get(key, "")) for tree in settings]
        if len(set(values)) > 1:
            table.add_row(key, *values)
    return table


def prune_runs(output: Path, *, really: bool) -> list[tuple[Path, int]]:
    """Delete the checkpoints of runs that have ended, whose best weights, figures and logs stay.

    Returns what goes and its bytes; without `really` nothing is deleted.
    """
    gone = []
    for run in all_runs(output):
        if run.ended in ENDED and run.best_weights.is_file() and run.checkpoint.is_file():
            gone.append((run.checkpoint, run.checkpoint.stat().st_size))
            if really:
                shutil.rmtree(run.checkpoint.parent)
    return gone


def facts_of(run: Run) -> dict[str, str]:
    """A run in words and figures."""
    recipe = run.recipe()
    try:
        result: dict[str, Any] = json.loads(run.result.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        result = {}
    best = result.get("best") or {}
    origin = run.origin()
    data = origin.get("data") or {}
    return {
        "model": recipe.model.name,
        "data": str(recipe.data.path or recipe.data.train_json),
        "classes": str(len(recipe.classes)),
        "epochs": f"{result.get('epochs', '?')}/{recipe.train.epochs}",
        "mask AP": _percent(best.get("mask", {}).get("AP")),
        "box AP": _percent(best.get("box", {}).get("AP")),
        "best epoch": str(result.get("best_epoch", "?")),
        "seconds": str(result.get("seconds", "?")),
        "started from": _parent(origin),
        "train annotations": data.get("train annotations", "?")[:16],
        "val annotations": data.get("val annotations", "?")[:16],
        "code": str(origin.get("code", "?")),
        "ended": str(result.get("ended", "runs, or was killed")).partition(":")[0],
    }


def _parent(origin: Mapping[str, Any]) -> str:
    if not origin:
        return "?"
    weights = origin.get("weights")
    return f"{weights['name']} {weights['sha256'][:16]}" if weights else "fresh weights"


def _percent(value: float | None) -> str:
    return "n/a" if value is None else f"{100 * value:.1f}"


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {
        key: value for name, node in tree.items() for key, value in _flat(node, f"{prefix}.{name}".strip(".")).items()
    }
