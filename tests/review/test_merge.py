"""What is written for LabelMe, corrected by hand, and merged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.pictures import CLASSES, write_dataset
from toolkit.data.coco import Picture, find_dataset
from toolkit.errors import UserError
from toolkit.review.merge import merge_reviewed
from toolkit.review.rank import Judged, Point, Shape
from toolkit.review.write import _write

SQUARE = [np.array([2.0, 2, 12, 2, 12, 12, 2, 12])]
Change = Callable[[Any], object]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "data")


@pytest.fixture
def review(data: Path, tmp_path: Path) -> Path:
    """Two pictures of val, the first with a suggestion, and a new one."""
    val = find_dataset(data).val
    one, two = val.pictures[:2]
    path = tmp_path / "new.png"
    Image.new("RGB", (40, 30)).save(path)
    drawn = [[Shape(val.classes[a.category], a.segmentation) for a in picture.annotations] for picture in (one, two)]
    best = [
        Judged(one, "val", [Point(1.0, "x")], [*drawn[0], Shape("disc", SQUARE, suggested=True, note="disc 0.9")]),
        Judged(Picture(0, path, "sub/new.png", 30, 40, []), "unlabelled", [Point(0.5, "y")], [Shape("disc", SQUARE)]),
        Judged(two, "val", [Point(0.1, "z")], drawn[1]),
    ]
    folder = tmp_path / "review"
    folder.mkdir()
    _write(best, folder, classes=val.classes, data={"path": str(data)})
    return folder


def change(file: Path, how: Change) -> None:
    tree = json.loads(file.read_text())
    how(tree)
    file.write_text(json.dumps(tree, indent=2))


def objects(folder: Path, part: str = "val") -> dict[str, list[str]]:
    split = getattr(find_dataset(folder), part)
    return {p.file_name: [split.classes[a.category] for a in p.annotations] for p in split.pictures}


def saved(tree: Any) -> None:
    """As LabelMe writes it, with nothing changed."""


def test_the_folder_is_labelme_s(review: Path) -> None:
    names = sorted(path.name for path in review.iterdir())
    assert names == [
        *("0001_val 0.json", "0001_val 0.png", "0002_new.json", "0002_new.png", "0003_val 1.json", "0003_val 1.png"),
        *("labels.txt", "review.json"),
    ]
    tree = json.loads((review / "0001_val 0.json").read_text())
    assert (tree["shapes"][-1]["label"], tree["shapes"][-1]["description"]) == ("disc?", "disc 0.9")
    assert (review / tree["imagePath"]).is_file()


def test_what_nobody_saved_changes_nothing(review: Path, data: Path, tmp_path: Path) -> None:
    log = merge_reviewed(review, tmp_path / "out")
    assert [line["taken"] for line in log] == ["no: as it was written"] * 3
    assert objects(tmp_path / "out") == objects(data)
    assert objects(tmp_path / "out", "train") == objects(data, "train")


def test_corrections_are_taken_in(review: Path, data: Path, tmp_path: Path) -> None:
    before = objects(data)

    def accept(tree: Any) -> None:
        tree["shapes"][-1]["label"] = "square"  # and not the disc that was suggested
        del tree["shapes"][0]

    change(review / "0001_val 0.json", accept)
    change(review / "0002_new.json", saved)
    (review / "0003_val 1.json").unlink()
    log = merge_reviewed(review, tmp_path / "out")
    after = objects(tmp_path / "out")
    assert after == {**before, "val 0.png": [*before["val 0.png"][1:], "square"]}
    train = objects(tmp_path / "out", "train")
    assert train == {**objects(data, "train"), "sub/new.png": ["disc"]}
    assert [line["taken"] for line in log] == ["yes", "yes", "no: the file is gone"]
    assert sum(log[0]["before"].values()) == sum(log[0]["after"].values()) == 2
    assert log[1]["after"] == {"disc": 1}
    assert json.loads((tmp_path / "out" / "review_log.json").read_text()) == log


def test_what_was_there_keeps_its_ids(review: Path, data: Path, tmp_path: Path) -> None:
    change(review / "0001_val 0.json", saved)
    merge_reviewed(review, tmp_path / "out")
    there, here = (
        json.loads((folder / "annotations" / "instance_val.json").read_text()) for folder in (data, tmp_path / "out")
    )
    assert {p["file_name"]: p["id"] for p in there["images"]} == {p["file_name"]: p["id"] for p in here["images"]}
    kept = [a["id"] for a in there["annotations"] if a["image_id"] != 0]
    assert [a["id"] for a in here["annotations"] if a["image_id"] != 0] == kept
    ids = [a["id"] for a in here["annotations"]]
    assert len(set(ids)) == len(ids)


def test_suggestions_that_nobody_decided_are_left_out(review: Path, data: Path, tmp_path: Path) -> None:
    change(review / "0001_val 0.json", saved)
    log = merge_reviewed(review, tmp_path / "out")
    assert log[0]["undecided"] == 1
    assert objects(tmp_path / "out") == objects(data)


def test_a_new_class(review: Path, tmp_path: Path) -> None:
    change(review / "0002_new.json", lambda tree: tree["shapes"][0].update(label="star"))
    with pytest.raises(UserError, match=r"label star is not in .*labels\.txt"):
        merge_reviewed(review, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (review / "labels.txt").write_text("disc\nsquare\nstar\n")
    merge_reviewed(review, tmp_path / "out")
    assert find_dataset(tmp_path / "out").train.classes == (*CLASSES, "star")


def test_data_at_places_of_their_own(review: Path, data: Path, tmp_path: Path) -> None:
    files = {f"{part}_json": str(data / "annotations" / f"instance_{part}.json") for part in ("train", "val")}
    change(review / "review.json", lambda tree: tree.update(data={**files, "images": str(data / "images")}))
    change(review / "0001_val 0.json", lambda tree: tree["shapes"].pop(0))
    merge_reviewed(review, tmp_path / "out")
    assert len(objects(tmp_path / "out")["val 0.png"]) == 1


@pytest.mark.parametrize(
    ("name", "how", "said"),
    [
        ("review.json", lambda tree: tree.pop("data"), "must have data and pictures"),
        ("0001_val 0.json", lambda tree: tree.pop("shapes"), "no list of shapes"),
        ("0001_val 0.json", lambda tree: tree["shapes"][0].update(points=[[1, 2]]), "at least 3 points"),
        ("review.json", lambda tree: tree["data"].update(path="/nowhere"), "no such file or folder"),
        (
            "review.json",
            lambda tree: tree["pictures"][0].update(picture="x.png", sha256=""),
            r"x\.png: no longer in val",
        ),
    ],
)
def test_what_cannot_be_merged(review: Path, tmp_path: Path, name: str, how: Change, said: str) -> None:
    change(review / name, how)
    with pytest.raises(UserError, match=said):
        merge_reviewed(review, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a review"):
        merge_reviewed(tmp_path, tmp_path / "out")
