from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.data.convert.datasets import mask_of, write
from toolkit.data.convert import reading
from toolkit.errors import UserError

HEIGHT, WIDTH = 20, 30
SQUARE = "0.1 0.1 0.5 0.1 0.5 0.6 0.1 0.6"  # x 3 to 15, y 2 to 12


def dataset(root: Path, *, roboflow: bool = False, names: str = "[dog, 猫]") -> Path:
    for part, i in (("train", 0), ("train", 1), ("valid", 0)):
        images = f"{part}/images" if roboflow else f"images/{part}"
        write(root / images / f"{part} {i}.jpg")
        label = root / images.replace("images", "labels") / f"{part} {i}.txt"
        label.parent.mkdir(parents=True, exist_ok=True)
        if i == 0:
            label.write_text(f"1 {SQUARE}\n\n0 {SQUARE} 0.3 0.3\n")
    where = "../{}/images" if roboflow else "images/{}"
    text = f"path: /somewhere/else\ntrain: {where.format('train')}\nval: {where.format('valid')}\nnames: {names}\n"
    (root / "data.yaml").write_text(text, encoding="utf-8")
    return root


@pytest.mark.parametrize("roboflow", [False, True])
@pytest.mark.parametrize("names", ["[dog, 猫]", "{0: dog, 1: 猫}"])
def test_outlines_parts_and_negatives(tmp_path, roboflow, names):
    root = dataset(tmp_path / "data", roboflow=roboflow, names=names)
    for source in (root, root / "data.yaml"):
        with reading(source) as (train, val):
            assert (train.name, val.name) == ("train", "val")
            assert train.classes == ("dog", "猫")
            assert [p.file_name for p in train.pictures] == ["train 0.jpg", "train 1.jpg"]
            first, second = train.pictures[0].annotations
            assert (first.category, second.category) == (1, 0)
            expected = np.zeros((HEIGHT, WIDTH), np.uint8)
            expected[2:12, 3:15] = 1
            np.testing.assert_array_equal(mask_of(first, train.pictures[0]), expected)
            assert train.pictures[1].annotations == []
            assert train.notes == (f"{source}: 1 pictures without a label file (negatives): train 1.jpg",)


def test_a_list_of_pictures_and_a_folder_for_a_part(tmp_path):
    root = dataset(tmp_path)
    (root / "train.txt").write_text("./images/train/train 1.jpg\n")
    (root / "data.yaml").write_text("train: train.txt\nval: [images/valid, images/train]\nnames: [dog, cat]\n")
    with reading(root) as (train, val):
        assert [p.file_name for p in train.pictures] == ["train 1.jpg"]
        assert [p.file_name for p in val.pictures] == ["valid/valid 0.jpg", "train/train 0.jpg", "train/train 1.jpg"]
        assert len({p.path for part in (train, val) for p in part.pictures}) == 3


def test_classes_txt_without_yaml(tmp_path):
    write(tmp_path / "images" / "a.png")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text(f"0 {SQUARE}")
    (tmp_path / "classes.txt").write_text("猫\n", encoding="utf-8")
    with reading(tmp_path) as [part]:
        assert (part.name, part.classes, len(part.pictures[0].annotations)) == ("all", ("猫",), 1)


def test_boxes_are_left_out_and_said(tmp_path):
    root = dataset(tmp_path)
    (root / "labels" / "train" / "train 1.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    with reading(root) as (train, _):
        assert train.pictures[1].annotations == []
        assert "1 lines with a box and no outline (left out): " in train.notes[0]
        assert train.notes[0].endswith("train 1.txt: line 1")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f"2 {SQUARE}", "class 2 is not one of 0 to 1"),
        (f"-1 {SQUARE}", "class -1 is not one of 0 to 1"),
        (f"0.5 {SQUARE}", "must be the number of a class, then x1 y1"),
        ("0 0.1 0.1 a 0.1 0.5 0.6", "must be the number of a class, then x1 y1"),
        (f"0 {SQUARE} 0.5", "an outline has x and y of at least 3 points (has 9 numbers)"),
        ("0", "an outline has x and y of at least 3 points (has 0 numbers)"),
        ("0 3 2 15 2 15 12 3 12", "coordinates must lie between 0 and 1"),
        ("0 nan 0.1 0.5 0.1 0.5 0.6", "coordinates must lie between 0 and 1"),
    ],
)
def test_a_wrong_line_is_refused_with_file_and_line(tmp_path, line, message):
    root = dataset(tmp_path)
    file = root / "labels" / "train" / "train 1.txt"
    file.write_text(f"0 {SQUARE}\n{line}\n")
    with pytest.raises(UserError) as error, reading(root):
        pass
    assert str(error.value).startswith(f"{file}: line 2: ")
    assert message in str(error.value)


def test_outlines_may_leave_the_picture_by_a_hair(tmp_path):
    root = dataset(tmp_path)
    (root / "labels" / "train" / "train 1.txt").write_text("0 -0.004 0.5 1.002 0.5 1.002 1.003 0 1.003\n")
    with reading(root) as (train, _):
        assert train.pictures[1].annotations[0].bbox == (0, 10, 30, 20)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: [a, a]\ntrain: images/train", r"data\.yaml: names: must be a list of different names"),
        ("names: {1: a}\ntrain: images/train", r"data\.yaml: names: must have the keys 0 to 0"),
        ("names: [a]\ntrain: nowhere", r"data\.yaml: train: nowhere: no such folder"),
        ("names: [a]\ntrain:", r"data\.yaml: names no pictures"),
        ("names: [a\ntrain: x", r"data\.yaml: not a readable YAML file"),
    ],
)
def test_a_wrong_yaml_file_is_refused(tmp_path, text, message):
    dataset(tmp_path)
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(UserError, match=message), reading(tmp_path):
        pass
