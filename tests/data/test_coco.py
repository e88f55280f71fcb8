"""Layouts, treatments, and twelve kinds of broken dataset."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as codec

from toolkit.data.coco import Dataset, dataset_of, find_dataset
from toolkit.data.images import read_rgb
from toolkit.data.masks import rle_to_mask, segmentation_to_mask
from toolkit.errors import UserError
from toolkit.recipe import Data

HEIGHT, WIDTH = 20, 30
SHAPES = Path(__file__).parents[2] / "datasets" / "shapes"


def square(x: float, y: float, side: float) -> list[float]:
    return [x, y, x + side, y, x + side, y + side, x, y + side]


def tree(names: list[str], *, first_id: int = 1) -> dict[str, Any]:
    """A file with one object of each of two classes in the first picture, and negatives."""
    images = [{"id": first_id + i, "file_name": n, "width": WIDTH, "height": HEIGHT} for i, n in enumerate(names)]
    objects = [
        {"id": 10 + i, "image_id": first_id, "category_id": category, "segmentation": [square(3 * i + 2, 4, 8)]}
        for i, category in enumerate((7, 3))
    ]
    categories = [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}]
    return {"images": images, "annotations": objects, "categories": categories}


def write_picture(path: Path, *, size: tuple[int, int] = (HEIGHT, WIDTH), orientation: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, exif=exif)


def write_json(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


class Folder:
    """A dataset in PaddleX's layout, to be spoilt by a test."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.trees = {name: tree([f"{name}_{i}.jpg" for i in range(3)]) for name in ("train", "val")}
        for name in ("train", "val"):
            for i in range(3):
                write_picture(root / "images" / f"{name}_{i}.jpg")

    @property
    def train(self) -> dict[str, Any]:
        return self.trees["train"]

    def load(self) -> Dataset:
        for name, content in self.trees.items():
            write_json(self.root / "annotations" / f"instance_{name}.json", content)
        return find_dataset(self.root)

    def refused(self) -> str:
        with pytest.raises(UserError) as error:
            self.load()
        text = str(error.value)
        assert "\n" not in text
        assert text.startswith(str(self.root))
        return text.removeprefix(str(self.root / "annotations") + "/")


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "datä set")


# Layouts


def assert_loaded(dataset: Dataset) -> None:
    for split in (dataset.train, dataset.val):
        assert split.classes == ("dog", "cat")
        assert split.category_ids == (3, 7)
        assert [len(picture.annotations) for picture in split.pictures] == [2, 0]
        assert [a.category for a in split.pictures[0].annotations] == [1, 0]
        for picture in split.pictures:
            assert read_rgb(picture.path).shape == (picture.height, picture.width, 3) == (HEIGHT, WIDTH, 3)


def build(root: Path, files: dict[str, tuple[str, str]]) -> None:
    for json_path, (pictures, prefix) in files.items():
        names = [f"{Path(json_path).as_posix().replace('/', '-')}-{i}.jpg" for i in range(2)]
        write_json(root / json_path, tree([prefix + name for name in names]))
        for name in names:
            write_picture(root / pictures / name)


@pytest.mark.parametrize(
    "files",
    [
        {
            "annotations/instances_train2017.json": ("train2017", ""),
            "annotations/instances_val2017.json": ("val2017", ""),
        },
        {
            "annotations/instances_train.json": ("images/train", ""),
            "annotations/instances_val.json": ("images/val", ""),
        },
        {
            "annotations/instances_train2017.json": ("images/train2017", "images/train2017/"),
            "annotations/instances_val2017.json": ("images/val2017", "val2017/"),
        },
        {"annotations/instance_train.json": ("images", ""), "annotations/instance_val.json": ("images", "")},
        {
            "annotations/instance_train.json": ("images/a b/ü", "a b/ü/"),
            "annotations/instance_val.json": ("images/c/d", "c\\d\\"),
        },
        {"train/_annotations.coco.json": ("train", ""), "valid/_annotations.coco.json": ("valid", "")},
        {"train/_annotations.coco.json": ("train", ""), "val/_annotations.coco.json": ("val", "")},
    ],
    ids=["coco", "coco without year", "coco below images", "paddlex", "subfolders", "roboflow", "roboflow val"],
)
def test_layouts(tmp_path, files):
    root = tmp_path / "数据 set"
    build(root, files)
    dataset = find_dataset(root)
    assert_loaded(dataset)
    assert dataset.root == root


def test_files_named_by_hand(tmp_path, monkeypatch):
    build(tmp_path, {"here/my train.json": ("pictures/x", ""), "there/my val.json": ("pictures/x", "")})
    named = {"train_json": tmp_path / "here/my train.json", "val_json": tmp_path / "there/my val.json"}
    assert_loaded(find_dataset(None, **named, images=tmp_path / "pictures" / "x"))
    assert_loaded(find_dataset(tmp_path, **named, images=tmp_path / "pictures" / "x"))
    # Relative to the dataset's folder, and relative to where one is.
    inside = {"train_json": Path("here/my train.json"), "val_json": Path("there/my val.json")}
    assert_loaded(find_dataset(tmp_path, **inside, images=tmp_path / "pictures" / "x"))
    monkeypatch.chdir(tmp_path)
    assert_loaded(find_dataset(None, **inside, images=Path("pictures/x")))
    data = Data(train_json="here/my train.json", val_json="there/my val.json", images="pictures/x", input_size=(64, 64))
    assert_loaded(dataset_of(data))


def test_files_named_by_hand_find_pictures_in_the_usual_places(tmp_path):
    build(tmp_path, {"annotations/a.json": ("images", ""), "annotations/b.json": ("images", "")})
    named = {"train_json": tmp_path / "annotations/a.json", "val_json": tmp_path / "annotations/b.json"}
    assert_loaded(find_dataset(None, **named))


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda root: None, "no dataset in a known layout"),
        (lambda root: write_json(root / "annotations/instance_train.json", "{}"), "instance_val.json: missing"),
        (lambda root: write_json(root / "annotations/instances_train2017.json", "{}"), "instances_val2017.json: miss"),
        (lambda root: write_json(root / "train/_annotations.coco.json", "{}"), "valid/_annotations.coco.json: missing"),
        (
            lambda root: [write_json(root / f"annotations/instances_train{y}.json", "{}") for y in (2014, 2017)],
            "has annotations/instances_train2014.json and annotations/instances_train2017.json; choose",
        ),
    ],
)
def test_a_folder_without_a_dataset_is_refused(tmp_path, prepare, message):
    prepare(tmp_path)
    with pytest.raises(UserError, match=message):
        find_dataset(tmp_path)


def test_wrong_calls_are_refused(tmp_path):
    with pytest.raises(UserError, match="say which data to use with --data"):
        find_dataset(None)
    with pytest.raises(UserError, match=r"nowhere: no such folder"):
        find_dataset(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"pics: no such folder"):
        find_dataset(tmp_path, images=tmp_path / "pics")
    with pytest.raises(UserError, match="go together"):
        find_dataset(tmp_path, train_json=tmp_path / "a.json")
    with pytest.raises(UserError, match=r"a\.json: missing"):
        find_dataset(tmp_path, train_json=tmp_path / "a.json", val_json=tmp_path / "b.json")


# What annotations become


def test_the_sample_dataset_agrees_with_pycocotools():
    dataset = find_dataset(SHAPES)
    assert dataset.train.notes == dataset.val.notes == ()
    assert dataset.train.classes == ("circle", "rectangle", "triangle")
    assert (len(dataset.train.pictures), len(dataset.val.pictures)) == (240, 40)
    assert sum(not picture.annotations for picture in dataset.train.pictures) >= 3
    assert sum(a.iscrowd for picture in dataset.train.pictures for a in picture.annotations) == 1
    source = {a["id"]: a for a in json.loads(dataset.val.json_path.read_text())["annotations"]}
    for picture in dataset.val.pictures:
        for annotation in picture.annotations:
            given = source[annotation.id]
            mask = segmentation_to_mask(annotation.segmentation, (picture.height, picture.width))
            rles = (
                codec.frPyObjects(given["segmentation"], picture.height, picture.width)
                if (isinstance(given["segmentation"], list) or isinstance(given["segmentation"]["counts"], list))
                else given["segmentation"]
            )
            expected = codec.decode(codec.merge(rles) if isinstance(rles, list) else rles)
            np.testing.assert_array_equal(mask, expected)
            x, y, w, h = given["bbox"]
            np.testing.assert_allclose(annotation.bbox, (x, y, x + w, y + h), atol=1e-9)
            assert annotation.area == given["area"]


def test_every_kind_of_segmentation(folder):
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[3:9, 4:12] = 1
    compressed = codec.encode(np.asfortranarray(mask))["counts"].decode()
    flat = mask.ravel(order="F").astype(int)
    ends = [0, *(np.flatnonzero(np.diff(flat)) + 1).tolist(), flat.size]
    common = {"image_id": 2, "category_id": 3}
    folder.train["annotations"] += [
        {**common, "id": 20, "segmentation": {"size": [HEIGHT, WIDTH], "counts": np.diff(ends).tolist()}},
        {**common, "id": 21, "segmentation": {"size": [HEIGHT, WIDTH], "counts": compressed}, "area": 5, "iscrowd": 1},
        {**common, "id": 22, "segmentation": [square(4, 3, 2), square(9, 6, 3)], "area": 0},
        {**common, "segmentation": [square(-5, 14, 10)], "area": None, "iscrowd": None, "bbox": "nonsense"},
    ]
    whole, crowd, parts, cut = folder.load().train.pictures[1].annotations
    for annotation in (whole, crowd):
        np.testing.assert_array_equal(rle_to_mask(annotation.segmentation), mask)
        assert annotation.bbox == (4, 3, 12, 9)
    assert (whole.area, crowd.area, parts.area) == (48, 5, 13)
    assert [a.iscrowd for a in (whole, crowd, parts)] == [False, True, False]
    assert parts.bbox == (4, 3, 12, 9)
    assert cut.bbox == (0, 14, 5, 20)
    assert cut.area == 30


def test_sizes_may_be_left_to_the_pictures(folder):
    for image in folder.train["images"]:
        del image["height"], image["width"]
    assert {(p.height, p.width) for p in folder.load().train.pictures} == {(HEIGHT, WIDTH)}


def test_a_byte_order_mark_is_no_harm(folder):
    folder.load()
    file = folder.root / "annotations" / "instance_train.json"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert len(find_dataset(folder.root).train.pictures) == 3


def test_folders_of_pictures_may_be_links(folder, tmp_path):
    (folder.root / "images").rename(tmp_path / "elsewhere")
    (folder.root / "images").symlink_to(tmp_path / "elsewhere")
    assert len(folder.load().train.pictures) == 3


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
@pytest.mark.parametrize("kind", ["polygon", "rle"])
def test_annotations_of_stored_pixels_are_turned_with_the_picture(folder, orientation, kind):
    bright = np.zeros((HEIGHT, WIDTH), np.uint8)
    bright[4:16, 6:12] = 1
    path = folder.root / "images" / "train_0.jpg"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.repeat(bright[..., None] * 255, 3, axis=2)).save(path, exif=exif, quality=95)
    polygon = [[6, 4, 12, 4, 12, 16, 6, 16]]
    rle = {"size": [HEIGHT, WIDTH], "counts": codec.encode(np.asfortranarray(bright))["counts"].decode()}
    folder.train["annotations"][0]["segmentation"] = polygon if kind == "polygon" else rle
    split = folder.load().train
    picture = split.pictures[0]
    assert (picture.height, picture.width) == (WIDTH, HEIGHT)
    annotation = picture.annotations[0]
    mask = segmentation_to_mask(annotation.segmentation, (picture.height, picture.width))
    np.testing.assert_array_equal(mask, read_rgb(path)[..., 0] > 127)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    assert annotation.bbox == (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    assert "1 pictures that EXIF turns" in split.notes[0]
    assert "train_0.jpg" in split.notes[0]


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_annotations_of_displayed_pixels_stay(folder, orientation):
    write_picture(folder.root / "images" / "train_0.jpg", orientation=orientation)
    size = (HEIGHT, WIDTH) if orientation < 5 else (WIDTH, HEIGHT)
    folder.train["images"][0].update(height=size[0], width=size[1])
    split = folder.load().train
    assert split.notes == ()
    assert (split.pictures[0].height, split.pictures[0].width) == size
    assert split.pictures[0].annotations[0].bbox == (2, 4, 10, 12)


def test_a_class_that_only_groups_others_is_left_out(folder):
    """Roboflow writes the name of the project as class 0."""
    for content in folder.trees.values():
        for category in content["categories"]:
            category["supercategory"] = "animals"
        content["categories"].insert(0, {"id": 0, "name": "animals", "supercategory": "none"})
    split = folder.load().train
    assert split.classes == ("dog", "cat")
    assert split.notes[0].endswith("1 categories that only group others (left out): animals")


def test_classes_without_annotations_are_said(folder):
    for content in folder.trees.values():
        content["categories"] += [{"id": 100 + i, "name": f"bird {i}"} for i in range(3)]
    dataset = folder.load()
    assert dataset.train.notes[0].endswith("3 classes without any annotation: bird 0 and 2 more")
    assert dataset.val.notes == ()


# Twelve kinds of broken dataset


def test_1_missing_file(folder):
    folder.load()
    (folder.root / "annotations" / "instance_val.json").unlink()
    with pytest.raises(UserError, match=r"instance_val\.json: missing"):
        find_dataset(folder.root)


@pytest.mark.parametrize("kept", [0, 1, 100, -2])
def test_2_truncated_json(folder, kept):
    folder.trees["train"] = json.dumps(folder.train)[:kept]  # type: ignore[assignment]
    text = folder.refused()
    assert text.startswith("instance_train.json: line 1 column ")
    assert "not valid JSON" in text
    assert "is it cut off?" in text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{\n 'images': []}", "line 2 column 2: not valid JSON"),
        ('{"images": [], "annotations": [{"area": NaN}]}', "not valid JSON"),
        ([], "must be an object with the keys images"),
        ({"images": []}, "annotations: must be a list"),
        ({"images": [], "annotations": [], "categories": {}}, "categories: must be a list"),
        ({"images": [], "annotations": [], "categories": []}, "categories: empty"),
        ({"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}]}, "images: empty"),
        ({"images": [], "annotations": [], "categories": [3]}, "categories[0]: must be an object"),
    ],
)
def test_2_not_coco_json(folder, content, message):
    folder.trees["train"] = content
    assert message in folder.refused()


def test_3_missing_image(folder):
    for name in ("train_1.jpg", "train_2.jpg"):
        (folder.root / "images" / name).unlink()
    text = folder.refused()
    assert text.startswith("instance_train.json: images[1] id 2: picture train_1.jpg is missing (looked in ")
    assert text.endswith("(and 1 more of this kind)")


@pytest.mark.parametrize("damage", ["cut", "empty", "text"])
def test_4_corrupt_image(folder, damage):
    path = folder.root / "images" / "train_1.jpg"
    data = path.read_bytes()
    path.write_bytes({"cut": data[: len(data) * 2 // 3], "empty": b"", "text": b"<html>404</html>"}[damage])
    text = folder.refused()
    assert text.startswith("instance_train.json: images[1] id 2: ")
    assert "train_1.jpg: " in text


def test_5_size_mismatch(folder):
    folder.train["images"][1]["width"] = 60
    assert folder.refused() == (
        "instance_train.json: images[1] id 2: train_1.jpg is 30 x 20 pixels, but width and height say 60 x 20; "
        "were the pictures resized after annotation?"
    )


@pytest.mark.parametrize("value", [5, None, "7", [7], 7.0, True])
def test_6_unknown_category(folder, value):
    folder.train["annotations"][1]["category_id"] = value
    text = folder.refused()
    assert text.startswith(
        f"instance_train.json: annotations[1] id 11: category_id {value} is not the id of a category"
    )


@pytest.mark.parametrize("value", [99, None, "1", [1], True])
def test_6_unknown_image(folder, value):
    folder.train["annotations"][1]["image_id"] = value
    text = folder.refused()
    assert text.startswith(f"instance_train.json: annotations[1] id 11: image_id {value} is not the id of an image")


@pytest.mark.parametrize(
    "empty",
    [
        None,
        [],
        [[]],
        [[1, 1, 5, 5]],
        [[3, 3, 3, 3, 3, 3]],
        [[2, 5, 9, 5, 4, 5]],
        [square(-15, -12, 9)],
        {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]},
    ],
)
def test_7_annotations_without_a_mask_are_left_out_and_said(folder, empty):
    folder.train["annotations"][0]["segmentation"] = empty
    split = folder.load().train
    assert [a.id for a in split.pictures[0].annotations] == [11]
    file = folder.root / "annotations" / "instance_train.json"
    note = f"{file}: 1 annotations whose mask is empty (left out): annotations[0] id 10"
    assert split.notes == (note, f"{file}: 1 classes without any annotation: cat")


@pytest.mark.parametrize(
    ("polygon", "rule"),
    [
        ([[1, 1, 5, 1, 5, 5, 7]], "polygon 0 has an odd number of coordinates (7)"),
        ([square(2, 2, 9), ["a"] * 6], "polygon 1 must be a flat list of numbers"),
        ([[[1, 1], [5, 1], [5, 5]]], "polygon 0 must be a flat list of numbers"),
        (square(2, 2, 9), "polygon 0 must be a flat list of numbers"),
        ([square(2, 2, 9000)], "far outside the picture of 30 x 20"),
        ("polygon", "segmentation must be a list of polygons or an RLE object"),
        ([square(2, 2, 9)] * 10_001, "10001 polygons are more than 10000"),
        ([[0, 0, 60, 40] * 80_000], "outlines of 9.6e+06 pixels are longer than 4000000"),
    ],
)
def test_7_malformed_polygon(folder, polygon, rule):
    folder.train["annotations"][0]["segmentation"] = polygon
    text = folder.refused()
    assert text.startswith("instance_train.json: annotations[0] id 10: ")
    assert rule in text


@pytest.mark.parametrize(
    ("rle", "rule"),
    [
        ({"size": [HEIGHT, WIDTH], "counts": [1, 2, 3]}, "RLE counts sum to 6, not to height x width = 600"),
        ({"size": [HEIGHT, WIDTH], "counts": [700, -100]}, "must not be negative"),
        ({"size": [WIDTH, HEIGHT], "counts": [600]}, "RLE size [30, 20] is not the picture's [height, width] [20, 30]"),
        ({"size": [HEIGHT, WIDTH], "counts": "@@ZZ0ééé"}, "character"),
        ({"size": [HEIGHT, WIDTH], "counts": "h"}, "middle of a number"),
        ({"counts": "h"}, "RLE size None"),
        ({}, "must have the keys size and counts"),
    ],
)
def test_8_malformed_rle(folder, rle, rule):
    folder.train["annotations"][0]["segmentation"] = rle
    text = folder.refused()
    assert text.startswith("instance_train.json: annotations[0] id 10: ")
    assert rule in text


@pytest.mark.parametrize("name", ["../../secret.jpg", "{outside}", "..\\..\\secret.jpg", "a/../../../secret.jpg"])
def test_9_path_outside_the_folder(folder, name):
    outside = folder.root.parent / "secret.jpg"
    write_picture(outside)
    name = name.format(outside=outside)
    folder.train["images"][2]["file_name"] = name
    text = folder.refused()
    assert text.startswith(f"instance_train.json: images[2] id 3: file_name {name} leads out of {folder.root};")


@pytest.mark.parametrize("name", [None, "", 5, "a\0b"])
def test_9_no_file_name(folder, name):
    folder.train["images"][2]["file_name"] = name
    assert folder.refused().startswith("instance_train.json: images[2] id 3: file_name must be a text;")


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("images", "images[1] id 1: there is another image with this id"),
        ("annotations", "annotations[1] id 10: there is another annotation with this id"),
        ("categories", "categories[1] id 7: there is another category with this id"),
    ],
)
def test_10_duplicate_ids(folder, key, message):
    folder.train[key][1]["id"] = folder.train[key][0]["id"]
    assert message in folder.refused()


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
@pytest.mark.parametrize("value", ["1", 1.0, True, [1]])
def test_10_ids_are_integers(folder, key, value):
    folder.train[key][1]["id"] = value
    assert f"{key}[1] id {value}: id must be an integer" in folder.refused()


def test_10_two_classes_of_one_name(folder):
    folder.train["categories"][1]["name"] = "cat"
    assert "categories[1] id 3: there is another category named cat" in folder.refused()


@pytest.mark.parametrize("split", ["train", "val"])
def test_11_no_annotations(folder, split):
    folder.trees[split]["annotations"] = []
    assert folder.refused() == f"instance_{split}.json: annotations: empty; there must be at least one object"


def test_11_boxes_only(folder):
    for annotation in folder.train["annotations"]:
        annotation["segmentation"] = []
    assert "annotations: no annotation has a mask (are these boxes only?)" in folder.refused()


def test_12_validation_has_a_class_that_training_has_not(folder):
    folder.trees["val"]["categories"].append({"id": 1, "name": "horse"})
    text = folder.refused()
    assert text.startswith("instance_val.json: categories[2] id 1: horse is not among the classes of ")
    assert "(dog, cat)" in text


def test_12_classes_of_another_order_are_taken_by_name(folder):
    folder.trees["val"]["categories"] = [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]
    dataset = folder.load()
    assert dataset.val.classes == dataset.train.classes == ("dog", "cat")
    assert dataset.val.category_ids == (7, 3)
    assert [a.category for a in dataset.val.pictures[0].annotations] == [0, 1]
    assert "categories have another order; classes are taken by name from" in dataset.val.notes[0]


def test_12_a_class_that_validation_lacks_is_said(folder):
    folder.trees["val"]["categories"] = [{"id": 3, "name": "cat"}]
    folder.trees["val"]["annotations"].pop(0)
    dataset = folder.load()
    assert dataset.val.classes == ("dog", "cat")
    # 3 is the id of dog in train, but of cat in val.
    assert dataset.val.category_ids == (8, 3)
    assert [a.category for a in dataset.val.pictures[0].annotations] == [1]
    assert "its categories lack dog" in dataset.val.notes[0]


@pytest.mark.parametrize("value", [2, -1, "0", []])
def test_iscrowd_is_0_or_1(folder, value):
    folder.train["annotations"][0]["iscrowd"] = value
    assert f"annotations[0] id 10: iscrowd must be 0 or 1 (is: {value})" in folder.refused()
