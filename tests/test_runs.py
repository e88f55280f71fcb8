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
from toolkit.train.origin import code_version, write_origin
from toolkit.weights.fetch import sha256_of


def make(output: Path, ended: str | None, *, ap: float = 0.25, model: str = "PP-YOLOE_seg-S", **overrides: Any) -> Run:
    run = Run.create(output, load_recipe(model, {"data.path": "data", **overrides}))
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


def test_runs_are_chosen_and_sorted(output: Path) -> None:
    names = {}
    for model, ap in (("PP-YOLOE_seg-S", 0.3), ("SOLOv2", 0.1), ("Mask-RT-DETR-S", 0.2)):
        names[model] = make(output, "completed", ap=ap, model=model).path.name
    unfinished = make(output, None).path.name

    def order(**options: Any) -> list[str]:
        return [line.split()[1] for line in text(list_runs(output, **options)).splitlines() if "MB" in line]

    by_ap = [names["PP-YOLOE_seg-S"], names["Mask-RT-DETR-S"], names["SOLOv2"], unfinished]
    assert order(sort="ap") == by_ap
    assert order(sort="model")[0] == names["Mask-RT-DETR-S"]
    assert order(where=["model=solo"]) == [names["SOLOv2"]]
    assert order(where=["ended=completed", "model=-s"], sort="ap") == by_ap[:2]
    with pytest.raises(UserError, match=r"--where colour=red: must be KEY=TEXT; keys are model, data"):
        order(where=["colour=red"])
    with pytest.raises(UserError, match="no run with H in model"):
        order(where=["model=H", "model=Mask"])


def test_a_run_tells_where_it_comes_from(output: Path, tmp_path: Path) -> None:
    first, second = make(output, "completed"), make(output, "completed")
    assert "started from" in text(show_run(first))
    data = {"pictures": 8, "annotations": 16, "train annotations": "ab" * 32, "val annotations": "cd" * 32}
    write_origin(first, weights=None, data=data)
    write_origin(second, weights=first.best_weights, data=data)
    said = text(show_run(first))
    assert "fresh weights" in said
    assert "abab" in said
    assert code_version() in said
    assert f"{first.path.name}/best_model.pdparams {sha256_of(first.best_weights)[:16]}" in text(show_run(second))
    loose = tmp_path / "official.pdparams"
    loose.write_bytes(b"")
    write_origin(second, weights=loose, data=data)
    assert "official.pdparams e3b0c442" in text(show_run(second))
    second.origin_file.write_text("{")
    assert second.origin() == {}


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
