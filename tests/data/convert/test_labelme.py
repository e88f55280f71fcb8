from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.data.convert.datasets import mask_of, write
from toolkit.data.convert import convert, reading
from toolkit.data.convert.labelme import labelme_tree
from toolkit.data.masks import mask_to_rle
from toolkit.errors import UserError

HEIGHT, WIDTH = 20, 30


def shape(label: str, points: Any, kind: str = "polygon", **more: Any) -> dict[str, Any]:
    return {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}, **more}


def box(x: float, y: float, side: float) -> list[list[float]]:
    return [[x, y], [x + side, y], [x + side, y + side], [x, y + side]]


def png(mask: np.ndarray) -> str:
    stream = io.BytesIO()
    Image.fromarray(mask).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


class Labelled:
    """A folder with one labelled picture, to be spoilt by a test."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.tree: dict[str, Any] = {
            "version": "5.0.1",
            "flags": {},
            "shapes": [shape("dog", box(2, 3, 5))],
            "imagePath": "bild 1.png",
            "imageData": None,
            "imageHeight": HEIGHT,
            "imageWidth": WIDTH,
        }
        write(root / "bild 1.png")

    @property
    def file(self) -> Path:
        return self.root / "bild 1.json"

    def read(self):
        self.file.write_text(json.dumps(self.tree), encoding="utf-8")
        with reading(self.root, "labelme") as parts:
            return parts

    def refused(self) -> str:
        with pytest.raises(UserError) as error:
            self.read()
        assert "\n" not in str(error.value)
        return str(error.value)


@pytest.fixture
def folder(tmp_path: Path) -> Labelled:
    root = tmp_path / "bilder ü"
    root.mkdir()
    return Labelled(root)


def only(parts):
    [part] = parts
    [picture] = part.pictures
    return part, picture


def test_shapes_that_enclose_something_become_instances(folder):
    bitmap = np.zeros((4, 6), np.uint8)
    bitmap[1:3, 1:5] = 255
    folder.tree["shapes"] = [
        shape("polygon", box(2, 3, 5)),
        shape("rectangle", [[9, 8], [4, 2]], "rectangle"),
        shape("circle", [[15, 10], [15, 15]], "circle"),
        shape("turned", [[10, 2], [14, 6], [10, 10], [6, 6]], "oriented_rectangle"),
        shape("mask", [[20.6, 10], [25.6, 13]], "mask", mask=png(bitmap)),
        shape("over the border", [[27, 17], [32, 20]], "mask", mask=png(np.full((4, 6), 255, np.uint8))),
    ]
    part, picture = only(folder.read())
    assert part.notes == ()
    masks = {part.classes[a.category]: mask_of(a, picture) for a in picture.annotations}
    assert masks["polygon"][3:8, 2:7].all()
    assert masks["polygon"].sum() == 25
    assert masks["rectangle"][2:8, 4:9].all()
    assert masks["rectangle"].sum() == 30
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH] + 0.5
    apart = np.hypot(rows - 10, columns - 15)
    assert masks["circle"][apart < 4.8].all()
    assert not masks["circle"][apart > 5.2].any()
    assert masks["turned"].sum() == pytest.approx(32, abs=4)
    assert masks["mask"][11:13, 21:25].all()
    assert masks["mask"].sum() == 8
    assert masks["over the border"][17:20, 27:30].all()
    assert masks["over the border"].sum() == 9


@pytest.mark.parametrize("kind", ["point", "points", "line", "linestrip"])
def test_points_and_lines_are_left_out_and_said(folder, kind):
    folder.tree["shapes"] += [shape("wire", [[1, 1], [5, 5], [8, 1]], kind), shape("__ignore__", box(9, 9, 5))]
    part, picture = only(folder.read())
    assert part.classes == ("dog",)
    assert len(picture.annotations) == 1
    assert [line.removeprefix(f"{folder.root}: ") for line in part.notes] == [
        "1 points and lines, which enclose nothing (left out): bild 1.json: shapes[1] wire",
        "1 shapes labelled as nothing (left out): bild 1.json: shapes[2] __ignore__",
    ]


def test_one_group_and_label_is_one_instance(folder):
    folder.tree["shapes"] = [
        shape("dog", box(2, 2, 4), group_id=1),
        shape("dog", box(10, 2, 4), group_id=1),
        shape("cat", box(20, 2, 4), group_id=1),
        shape("dog", box(2, 10, 4), group_id=2),
        shape("dog", box(10, 10, 4)),
        shape("dog", box(20, 10, 4)),
        shape("dog", [[24, 10], [27, 13]], "mask", group_id=2, mask=png(np.full((4, 4), 1, np.uint8))),
    ]
    part, picture = only(folder.read())
    found = [(part.classes[a.category], int(mask_of(a, picture).sum())) for a in picture.annotations]
    assert found == [("dog", 32), ("cat", 16), ("dog", 32), ("dog", 16), ("dog", 16)]
    assert [len(a.segmentation) for a in picture.annotations[:2]] == [2, 1]


def test_a_picture_without_shapes_is_a_negative_and_one_without_a_file_is_none(folder):
    write(folder.root / "empty.png")
    write(folder.root / "new.jpg")
    empty = {**folder.tree, "shapes": [], "imagePath": "empty.png"}
    (folder.root / "empty.json").write_text(json.dumps(empty))
    [part] = folder.read()
    assert [(p.file_name, len(p.annotations)) for p in part.pictures] == [("bild 1.png", 1), ("empty.png", 0)]
    assert part.notes == (f"{folder.root}: 1 pictures without a JSON file (left out): new.jpg",)


def test_folders_named_train_and_val_are_parts(folder):
    for i, name in enumerate(("train", "valid", "valid/deep")):
        write(folder.root / name / "a.png")
        tree = {**folder.tree, "imagePath": "a.png", "shapes": [shape(f"class {i}", box(1, 1, 5))]}
        (folder.root / name / "a.json").write_text(json.dumps(tree))
    with reading(folder.root) as parts:
        assert [part.name for part in parts] == ["train", "val"]
        assert [p.file_name for p in parts[1].pictures] == ["a.png", "deep/a.png"]
        assert parts[0].classes == parts[1].classes == ("class 0", "class 1", "class 2")
        assert [[picture.id for picture in part.pictures] for part in parts] == [[1], [1, 2]]


def test_labels_txt_gives_the_order_of_the_classes(folder):
    (folder.root / "labels.txt").write_text("__ignore__\n_background_\nzebra\n猫\ndog\n", encoding="utf-8")
    part, picture = only(folder.read())
    assert part.classes == ("zebra", "猫", "dog")
    assert picture.annotations[0].category == 2
    folder.tree["shapes"].append(shape("cow", box(1, 1, 4)))
    assert "shapes[1]: label cow is not in" in folder.refused()


def test_the_picture_is_found_below_backslashes_beside_or_inside_the_file(folder):
    write(folder.root / "deep" / "a.png", grey=7)
    folder.tree["imagePath"] = "deep\\a.png"
    assert only(folder.read())[1].file_name == "deep/a.png"
    # LabelMe has written the JSON's own name into it at times.
    folder.tree["imagePath"] = "bild 1.json"
    assert only(folder.read())[1].file_name == "bild 1.png"
    data = base64.b64encode((folder.root / "bild 1.png").read_bytes()).decode()
    (folder.root / "bild 1.png").unlink()
    folder.tree["imageData"] = data
    folder.file.write_text(json.dumps(folder.tree))
    convert(folder.root, folder.root.parent / "out")
    with reading(folder.root.parent / "out") as parts:
        part, picture = only(parts)
        assert base64.b64encode(picture.path.read_bytes()).decode() == data
        assert part.classes == ("dog",)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_shapes_are_for_the_upright_picture_unless_the_file_says_the_stored_size(folder, orientation):
    write(folder.root / "bild 1.png", orientation=orientation)
    upright = (HEIGHT, WIDTH) if orientation < 5 else (WIDTH, HEIGHT)
    folder.tree.update(imageHeight=upright[0], imageWidth=upright[1])
    part, picture = only(folder.read())
    assert (picture.height, picture.width) == upright
    assert picture.annotations[0].bbox == (2, 3, 7, 8)
    assert part.notes == ()
    if orientation > 4:
        folder.tree.update(imageHeight=HEIGHT, imageWidth=WIDTH)
        part, picture = only(folder.read())
        assert (picture.height, picture.width) == upright
        assert picture.annotations[0].bbox == {6: (12, 2, 17, 7), 8: (3, 23, 8, 28)}[orientation]
        assert "1 pictures that EXIF turns" in part.notes[0]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ({"imageWidth": 31}, "is 30 x 20 pixels, but the annotations are for 31 x 20"),
        ({"imagePath": "nowhere.png"}, None),
        ({"imagePath": 5}, "imagePath must be a text"),
        ({"shapes": [shape("dog", [[1, 1], [2, 2]])]}, "shapes[0] dog: a polygon has at least 3 points (has: 2)"),
        ({"shapes": [shape("dog", [[1, 1], [2]])]}, "shapes[0] dog: points must be a list of [x, y]"),
        ({"shapes": [shape("dog", [[1, 1], [2, None], [3, 3]])]}, "points must be a list of [x, y]"),
        ({"shapes": [shape("dog", box(1, 1, 900))]}, "far outside the picture"),
        ({"shapes": [shape("dog", [[1, 1]], "circle")]}, "a circle has 2 points (has: 1)"),
        ({"shapes": [shape("dog", box(1, 1, 5), "star")]}, "unknown shape_type star"),
        ({"shapes": [shape("dog", [[1, 1], [2, 2]], "mask")]}, "mask: must be a picture in base64"),
        ({"shapes": [shape("dog", [[1, 1], [2, 2]], "mask", mask="AAAA")]}, "mask: not a picture"),
        ({"shapes": [shape("", box(1, 1, 5))]}, "shapes[0]: label must be a text"),
        ({"shapes": [shape("dog", box(1, 1, 5), group_id=[1])]}, "shapes[0]: group_id must be an integer"),
        ({"shapes": [3]}, "shapes[0]: label must be a text"),
    ],
)
def test_what_cannot_be_read_is_refused_with_file_and_place(folder, spoil, message):
    folder.tree.update(spoil)
    if message is None:
        (folder.root / "bild 1.png").unlink()
        message = "imagePath: picture nowhere.png is missing"
    text = folder.refused()
    assert text.startswith(f"{folder.file}: ")
    assert message in text


def test_broken_json_and_folders_without_labels_are_refused(folder):
    folder.file.write_text('{"shapes": [')
    with pytest.raises(UserError, match=r"bild 1\.json: line 1 column 1.: not valid JSON"), reading(folder.root):
        pass
    folder.file.unlink()
    with pytest.raises(UserError, match="looks like none of labelme"), reading(folder.root):
        pass
    with pytest.raises(UserError, match="no JSON file of LabelMe"), reading(folder.root, "labelme"):
        pass


def test_a_picture_outside_of_the_folder_is_refused(folder):
    write(folder.root.parent / "secret.png")
    folder.tree["imagePath"] = "../secret.png"
    assert "leads out of" in folder.refused()


def test_other_json_files_are_left_out_and_said(folder):
    (folder.root / "notes.json").write_text('{"a": 1}')
    [part] = folder.read()
    assert part.notes == (f"{folder.root}: 1 JSON files that are not LabelMe's (left out): notes.json",)


def test_the_tree_has_what_labelme_asks_for():
    ring = np.zeros((HEIGHT, WIDTH), np.uint8)
    ring[4:12, 6:16] = 1
    ring[6:10, 8:14] = 0
    square = np.array([1, 2, 5, 2, 5, 6.5])
    tree = labelme_tree(
        "a.jpg",
        (HEIGHT, WIDTH),
        labels=["one", "two", "ring"],
        segmentations=[[square], [square, square + 9], mask_to_rle(ring)],
        crowds=[False, False, True],
    )
    assert json.loads(json.dumps(tree)) == tree
    assert {k: tree[k] for k in ("imagePath", "imageData", "imageHeight", "imageWidth", "flags")} == {
        "imagePath": "a.jpg",
        "imageData": None,
        "imageHeight": HEIGHT,
        "imageWidth": WIDTH,
        "flags": {},
    }
    one, two, more, mask = tree["shapes"]
    assert one["points"] == [[1, 2], [5, 2], [5, 6.5]]
    assert [s["group_id"] for s in tree["shapes"]] == [None, 1, 1, None]
    assert [s["shape_type"] for s in (one, two, more, mask)] == ["polygon", "polygon", "polygon", "mask"]
    # The corners of a mask are its first and its last pixel.
    assert mask["points"] == [[6, 4], [15, 11]]
    with Image.open(io.BytesIO(base64.b64decode(mask["mask"]))) as image:
        np.testing.assert_array_equal(np.asarray(image) > 0, ring[4:12, 6:16] > 0)
    assert mask["flags"] == {"iscrowd": True}
