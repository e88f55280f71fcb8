"""What goes wrong on the command line ends in one line and exit code 2."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.conftest import run_in


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["train"], "--model"),
        (["train", "--model", "PP-YOLOE_seg-S"], "--data"),
        (["train", "--model", "Mask-RTDETR-S", "--data", "."], "did you mean Mask-RT-DETR-S?"),
        (["train", "--model", "PP-YOLOE_seg-S", "--data", "nowhere"], "nowhere"),
        (["train", "--model", "PP-YOLOE_seg-S", "--data", ".", "--set", "train.epoch=3"], "did you mean epochs?"),
        (["train", "--resume"], "seg-tune train"),
        (["eval"], "seg-tune train"),
        (["eval", "--weights", "nothing.pdparams"], "nothing.pdparams"),
        (["export"], "seg-tune train"),
        (["predict", "--pipeline", "nothing.yaml", "--input", "a.jpg"], "nothing.yaml"),
        (["pipeline", "get", "OCR"], "pipeline OCR: unknown; there is instance_segmentation"),
        (["models", "Mask-RT-DETR"], "Mask-RT-DETR-"),
        (["convert", "nowhere", "out"], "nowhere: no such file or folder"),
        (["split", ".", "out", "--val", "0.8", "--test", "0.3"], "must sum to less than 1"),
        (["merge", ".", ".", "out", "--rename", "cat"], "--rename cat: must have the form OLD=NEW"),
        (["sample", ".", "out"], "looks like none of labelme"),
        (["inspect", ".", "--set", "train.seed=1"], "--set: changes a recipe"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_one_line_says_what_to_do(arguments: list[str], expected: str, tmp_path: Path) -> None:
    said = run_in(tmp_path, *arguments, code=2)
    assert said.stderr.startswith("error: ")
    assert said.stderr.count("\n") == 1
    assert expected in said.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_version_and_the_commands_are_listed(tmp_path: Path) -> None:
    assert run_in(tmp_path, "--version").stdout.strip() == "0.1.0"
    listed = run_in(tmp_path, "--help").stdout
    commands = "quickstart doctor models convert split merge sample inspect train eval export predict"
    assert all(f"  {command} " in listed for command in commands.split())
