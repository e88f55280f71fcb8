"""`seg-tune train` on twelve kinds of broken dataset: one line that says where, exit code 2, nothing written."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.pictures import write_dataset
from toolkit.cli.main import main

Break = Callable[[Path], None]


def edit(split: str, change: Callable[[dict[str, Any]], None]) -> Break:
    def apply(data: Path) -> None:
        file = data / "annotations" / f"instance_{split}.json"
        tree = json.loads(file.read_text(encoding="utf-8"))
        change(tree)
        file.write_text(json.dumps(tree), encoding="utf-8")

    return apply


def segmentation(value: Any) -> Break:
    return edit("train", lambda tree: tree["annotations"][3].update(segmentation=value))


def cut(name: str) -> Break:
    def apply(data: Path) -> None:
        content = (data / name).read_bytes()
        (data / name).write_bytes(content[: len(content) // 2])

    return apply


def other_classes(tree: dict[str, Any]) -> None:
    tree["categories"][0]["name"] = "cube"


BROKEN: dict[str, tuple[Break, tuple[str, ...]]] = {
    "missing file": (lambda data: (data / "annotations/instance_val.json").unlink(), ("instance_val.json",)),
    "truncated JSON": (cut("annotations/instance_train.json"), ("instance_train.json", "line 1")),
    "missing image": (lambda data: (data / "images/train 3.png").unlink(), ("train 3.png", "id 3")),
    "corrupt image": (cut("images/train 3.png"), ("train 3.png",)),
    "size mismatch": (
        edit("train", lambda tree: tree["images"][2].update(width=100)),
        ("train 2.png", "100", "64"),
    ),
    "unknown category": (
        edit("train", lambda tree: tree["annotations"][3].update(category_id=99)),
        ("instance_train.json", "annotations[3]", "99"),
    ),
    "malformed polygon": (segmentation([[1, 2, 3, 4, 5]]), ("instance_train.json", "annotations[3]")),
    "malformed RLE": (
        segmentation({"size": [64, 62], "counts": [5, 5]}),
        ("instance_train.json", "annotations[3]"),
    ),
    "path outside the folder": (
        edit("train", lambda tree: tree["images"][0].update(file_name="../../secret.png")),
        ("instance_train.json", "../../secret.png"),
    ),
    "duplicate ids": (
        edit("train", lambda tree: tree["images"][1].update(id=0)),
        ("instance_train.json", "id 0"),
    ),
    "no annotations at all": (
        edit("train", lambda tree: tree.update(annotations=[])),
        ("instance_train.json", "annotation"),
    ),
    "classes that differ": (edit("val", other_classes), ("instance_val.json", "cube")),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_it_is_refused_in_one_line_before_anything_is_written(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    apply, expected = BROKEN[kind]
    apply(write_dataset(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    arguments = ("train", "--model", "PP-YOLOE_seg-S", "--data", "data", "--pretrained", "none", "--device", "cpu")
    monkeypatch.setattr(sys, "argv", ["seg-tune", *arguments])
    with pytest.raises(SystemExit) as left:
        main()
    said = capfd.readouterr().err
    assert left.value.code == 2
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert [part for part in expected if part not in said] == []
    assert not (tmp_path / "output").exists()
