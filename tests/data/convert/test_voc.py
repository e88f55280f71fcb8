from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.convert.datasets import mask_of, write
from toolkit.data.convert import reading
from toolkit.data.convert.voc import VOC_CLASSES, _palette
from toolkit.errors import UserError

HEIGHT, WIDTH = 20, 30
OBJECTS = np.zeros((HEIGHT, WIDTH), np.uint8)
OBJECTS[2:8, 3:9] = 1
OBJECTS[10:16, 3:9] = 2
OBJECTS[10:16, 15:25] = 3
OBJECTS[2:8, 9] = 255
KINDS = np.where(OBJECTS == 3, 20, np.where((OBJECTS == 1) | (OBJECTS == 2), 15, OBJECTS)).astype(np.uint8)


def save(path: Path, ids: np.ndarray, *, coloured: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(ids)
    if ids.ndim == 2:
        image.putpalette(np.array(_palette(), np.uint8).tobytes())
    (image.convert("RGB") if coloured else image).save(path)


def dataset(root: Path, *, coloured: bool = False) -> Path:
    for stem in ("a", "b"):
        write(root / "JPEGImages" / f"{stem}.jpg")
        save(root / "SegmentationObject" / f"{stem}.png", OBJECTS if stem == "a" else OBJECTS * 0, coloured=coloured)
        save(root / "SegmentationClass" / f"{stem}.png", KINDS if stem == "a" else KINDS * 0, coloured=coloured)
    return root


def listed(root: Path, **parts: str) -> None:
    (root / "ImageSets" / "Segmentation").mkdir(parents=True, exist_ok=True)
    for name, text in parts.items():
        (root / "ImageSets" / "Segmentation" / f"{name}.txt").write_text(text)


def assert_read(root: Path) -> None:
    with reading(root) as parts:
        [part] = parts
        assert part.notes == ()
        a, b = part.pictures
        assert b.annotations == []
        found = [(part.classes[x.category], mask_of(x, a)) for x in a.annotations]
        assert [name for name, _ in found] == ["person", "person", "tvmonitor"]
        for number, (_, mask) in enumerate(found, 1):
            np.testing.assert_array_equal(mask, number == OBJECTS)


@pytest.mark.parametrize("coloured", [False, True])
@pytest.mark.parametrize("place", ["", "VOC2012", "VOCdevkit/VOC2007"])
def test_objects_take_the_class_below_them(tmp_path, coloured, place):
    dataset(tmp_path / place, coloured=coloured)
    assert_read(tmp_path)


def test_the_palette_is_that_of_voc():
    # Figures of VOC's development kit.
    assert _palette()[:4] == [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0)]
    assert _palette()[20] == (0, 64, 128)
    assert _palette()[255] == (224, 224, 192)
    assert len(VOC_CLASSES) == 20


def test_parts_are_those_of_the_lists(tmp_path):
    listed(dataset(tmp_path), train="a\n", val="b\n", trainval="a\nb\n", test="c\n")
    with reading(tmp_path) as parts:
        assert [(part.name, [p.file_name for p in part.pictures]) for part in parts] == [
            ("train", ["a.jpg"]),
            ("val", ["b.jpg"]),
        ]


def test_names_of_classes_come_from_a_file(tmp_path):
    dataset(tmp_path)
    names = ["__ignore__", "_background_", *(f"class {i}" for i in range(1, 21))]
    (tmp_path / "class_names.txt").write_text("\n".join(names))
    with reading(tmp_path) as parts:
        assert [parts[0].classes[a.category] for a in parts[0].pictures[0].annotations][-1] == "class 20"


def test_colours_come_from_labelmap(tmp_path):
    dataset(tmp_path)
    lines = ["# label:color_rgb:parts:actions", "background:0,0,0::", "猫:1,2,3::", "dog:9,9,200::"]
    (tmp_path / "labelmap.txt").write_text("\n".join(lines), encoding="utf-8")
    colours = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    colours[KINDS == 15] = (9, 9, 200)
    colours[KINDS == 20] = (1, 2, 3)
    save(tmp_path / "SegmentationClass" / "a.png", colours)
    with reading(tmp_path) as parts:
        assert parts[0].classes == ("猫", "dog")
        assert [a.category for a in parts[0].pictures[0].annotations] == [1, 1, 0]
    colours[0, 0] = 77
    save(tmp_path / "SegmentationClass" / "a.png", colours)
    with pytest.raises(UserError, match=r"a\.png: colour \(77, 77, 77\) is that of no class"), reading(tmp_path):
        pass


def test_an_object_of_two_classes_is_that_of_more_pixels_and_said(tmp_path):
    dataset(tmp_path)
    kinds = KINDS.copy()
    kinds[2, 3] = 4
    save(tmp_path / "SegmentationClass" / "a.png", kinds)
    with reading(tmp_path) as parts:
        assert parts[0].classes[parts[0].pictures[0].annotations[0].category] == "person"
        assert "1 objects with pixels of several classes (taken as that of the most): a object 1" in parts[0].notes[0]


def test_an_object_without_a_class_is_left_out_and_said(tmp_path):
    dataset(tmp_path)
    save(tmp_path / "SegmentationClass" / "a.png", np.where(OBJECTS == 3, 0, KINDS).astype(np.uint8))
    with reading(tmp_path) as parts:
        assert len(parts[0].pictures[0].annotations) == 2
        assert "1 objects without a class (left out): a object 3" in parts[0].notes[0]


def spoil(root: Path, how: str) -> None:
    mask = root / "SegmentationObject" / "a.png"
    if how == "mask":
        listed(root, train="a\nb\nc\n")
        write(root / "JPEGImages" / "c.jpg")
    elif how == "picture":
        (root / "JPEGImages" / "a.jpg").unlink()
    elif how == "size":
        save(mask, OBJECTS[:10])
    elif how == "both sizes":
        save(mask, OBJECTS[:10])
        save(root / "SegmentationClass" / "a.png", KINDS[:10])
    elif how == "class":
        save(root / "SegmentationClass" / "a.png", np.where(KINDS == 20, 21, KINDS).astype(np.uint8))
    elif how == "text":
        mask.write_text("no picture")
    elif how == "labelmap":
        (root / "labelmap.txt").write_text("cat 1,2,3")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("mask", r"SegmentationObject/c\.png: missing"),
        ("picture", "JPEGImages: picture a is missing"),
        ("size", r"SegmentationObject/a\.png: is not of the size of SegmentationClass/a\.png"),
        ("both sizes", r"a\.png: a\.jpg is 30 x 20 pixels, but the annotations are for 30 x 10"),
        ("class", r"SegmentationClass/a\.png: value 21 is not the number of a class \(1 to 20"),
        ("text", r"SegmentationObject/a\.png: not a picture"),
        ("labelmap", r"labelmap\.txt: line 1: must have the form"),
    ],
)
def test_what_cannot_be_read_is_refused_with_file_and_place(tmp_path, how, message):
    spoil(dataset(tmp_path), how)
    with pytest.raises(UserError, match=message), reading(tmp_path, "voc"):
        pass


def test_class_masks_alone_are_refused(tmp_path):
    save(tmp_path / "SegmentationClass" / "a.png", KINDS)
    with pytest.raises(UserError, match="no folder SegmentationObject"), reading(tmp_path, "voc"):
        pass


@pytest.mark.parametrize("orientation", [6, 8])
def test_masks_of_stored_pixels_are_turned_with_the_picture(tmp_path, orientation):
    dataset(tmp_path)
    write(tmp_path / "JPEGImages" / "a.jpg", orientation=orientation)
    with reading(tmp_path) as parts:
        picture = parts[0].pictures[0]
        assert (picture.height, picture.width) == (WIDTH, HEIGHT)
        mask = mask_of(picture.annotations[2], picture)
        np.testing.assert_array_equal(mask, np.rot90(OBJECTS == 3, 3 if orientation == 6 else 1))
