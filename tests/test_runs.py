from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from toolkit.errors import UserError
from toolkit.recipe import load_recipe
from toolkit.run import Run
from toolkit.runs import all_runs, compare_runs, list_runs, prune_runs, run_named, show_run


def make(output: Path, ended: str | None, *, ap: float = 0.25, **overrides: Any) -> Run:
    run = Run.create(output, load_recipe("PP-YOLOE_seg-S", {"data.path": "data", **overrides}))
    run.checkpoint.write_bytes(bytes(1000))
    run.best_weights.write_bytes(bytes(10))
    if ended:
        best = {"mask": {"AP": ap}, "box": {"AP": None}}
        run.result.write_text(json.dumps({"ended": ended, "epochs": 7, "best": best, "best_epoch": 3, "seconds": 9.5}))
    return run


def text(table: Table) -> str:
    console = Console(file=io.StringIO(), width=250)
    console.print(table)
    return console.file.getvalue()


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "output"


def test_runs_are_listed_shown_and_found(output: Path) -> None:
    one = make(output, "completed")
    two = make(output, None)
    assert [run.path for run in all_runs(output)] == [one.path, two.path]
    said = text(list_runs(output))
    assert one.path.name in said
    assert "25.0" in said
    assert "7/80" in said
    assert "runs, or was killed" in said
    assert "n/a" in text(show_run(one))
    assert run_named("latest", output).path.name == two.path.name
    assert run_named(one.path.name, output).path == run_named(str(one.path), output).path == one.path


def test_a_comparison_shows_what_differs_and_nothing_else(output: Path) -> None:
    runs = [make(output, "completed"), make(output, "stopped early", ap=0.5, **{"train.lr": 0.5})]
    said = text(compare_runs(runs))
    assert "train.lr" in said
    assert "25.0" in said
    assert "50.0" in said
    assert "train.epochs" not in said


def test_only_checkpoints_of_runs_that_have_ended_go(output: Path) -> None:
    done, early = make(output, "completed"), make(output, "stopped early")
    others = [make(output, ended) for ended in (None, "interrupted", "failed: x")]
    listed = prune_runs(output, really=False)
    assert all(run.checkpoint.exists() for run in (done, early, *others))
    assert prune_runs(output, really=True) == listed == [(done.checkpoint, 1000), (early.checkpoint, 1000)]
    assert not done.checkpoint.exists()
    assert all(run.best_weights.exists() for run in (done, early))
    assert all(run.checkpoint.exists() for run in others)


def test_a_folder_without_runs_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run in it"):
        list_runs(tmp_path)
