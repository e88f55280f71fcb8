from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.data.convert.datasets import write
from toolkit.data.coco import find_dataset
from toolkit.data.convert import convert, detect, reading
from toolkit.errors import UserError

SHAPES = Path(__file__).parents[3] / "datasets" / "shapes"
SQUARE = [2, 3, 9, 3, 9, 12, 2, 12]


def tree(*names: str, classes: dict[int, str] | None = None) -> dict[str, Any]:
    classes = classes or {0: "dog"}
    annotations = [
        {"id": i, "image_id": i, "category_id": next(iter(classes)), "segmentation": [SQUARE], "score": 0.5}
        for i, _ in enumerate(names)
    ]
    return {
        "info": {"year": 2024},
        "images": [{"id": i, "file_name": name, "coco_url": f"http://a/{i}"} for i, name in enumerate(names)],
        "annotations": annotations,
        "categories": [{"id": number, "name": name, "supercategory": "animal"} for number, name in classes.items()],
    }


def put(file: Path, content: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content), encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("files", "pictures", "parts"),
    [
        (["annotations/instance_train.json", "annotations/instance_val.json"], "images", ["train", "val"]),
        (["annotations/instances_val2017.json"], "val2017", ["val"]),
        (["annotations/instances_val2017.json", "annotations/captions_val2017.json"], "images/val2017", ["val"]),
        (["train/_annotations.coco.json"], "train", ["train"]),
        (["valid/_annotations.coco.json"], "valid", ["val"]),
        (["annotations.json"], "images", ["all"]),
        (["annotations.json"], "JPEGImages", ["all"]),
        (["annotations.json"], ".", ["all"]),
        (["annotations/labels_test.json"], "images", ["test"]),
    ],
)
def test_files_are_found_in_the_usual_places(tmp_path, files, pictures, parts):
    write(tmp_path / pictures / "deep" / "ü.png")
    for file in files:
        put(tmp_path / file, tree("deep/ü.png") if "captions" not in file else {"annotations": []})
    assert detect(tmp_path) == "coco"
    with reading(tmp_path) as found:
        assert [part.name for part in found] == parts
        assert all(part.pictures[0].file_name == "deep/ü.png" for part in found)


def test_a_file_and_a_folder_of_pictures_by_name(tmp_path):
    write(tmp_path / "elsewhere" / "a.png")
    file = put(tmp_path / "somewhere" / "my.json", tree("a.png"))
    with reading(file, images=tmp_path / "elsewhere") as [part]:
        assert part.pictures[0].path == tmp_path / "elsewhere" / "a.png"
    with pytest.raises(UserError, match=r"picture a\.png is missing"), reading(file):
        pass
    write(tmp_path / "yolo" / "images" / "a.png")
    (tmp_path / "yolo" / "data.yaml").write_text("names: [a]\ntrain: images\n")
    with pytest.raises(UserError, match="--images"), reading(tmp_path / "yolo", images=tmp_path):
        pass


def test_two_files_for_a_part_are_refused(tmp_path):
    for year in (2014, 2017):
        put(tmp_path / "annotations" / f"instances_train{year}.json", tree("a.png"))
    with (
        pytest.raises(
            UserError, match=r"instances_train2014\.json and .*instances_train2017\.json are there for train"
        ),
        reading(tmp_path),
    ):
        pass


def test_parts_get_one_list_of_classes_and_keep_their_ids(tmp_path):
    write(tmp_path / "images" / "a.png")
    put(tmp_path / "annotations" / "instance_train.json", tree("a.png", classes={7: "dog", 3: "cat"}))
    put(tmp_path / "annotations" / "instance_val.json", tree("a.png", classes={3: "cow"}))
    with reading(tmp_path) as (train, val):
        assert train.classes == val.classes == ("cat", "dog", "cow")
        assert train.category_ids == val.category_ids == (3, 7, 8)
        assert [part.classes[part.pictures[0].annotations[0].category] for part in (train, val)] == ["dog", "cow"]
    convert(tmp_path, tmp_path / "out")
    assert find_dataset(tmp_path / "out").val.classes == ("cat", "dog", "cow")


def test_what_entries_say_besides_is_written_on(tmp_path):
    write(tmp_path / "images" / "a.png")
    before = tree("a.png")
    put(tmp_path / "annotations" / "instance_train.json", before)
    convert(tmp_path, tmp_path / "out")
    after = json.loads((tmp_path / "out" / "annotations" / "instance_train.json").read_text())
    assert after["info"] == before["info"]
    assert after["categories"] == before["categories"]
    assert after["images"] == [{**before["images"][0], "height": 20, "width": 30}]
    full = {"bbox": [2, 3, 7, 9], "area": 63, "iscrowd": 0}
    assert after["annotations"] == [{**before["annotations"][0], **full}]


def test_the_sample_dataset_goes_through_unchanged(tmp_path):
    convert(SHAPES, tmp_path / "out", link=True)
    before, after = find_dataset(SHAPES), find_dataset(tmp_path / "out")
    for old, new in ((before.train, after.train), (before.val, after.val)):
        assert [(p.id, p.file_name, len(p.annotations)) for p in new.pictures] == [
            (p.id, p.file_name, len(p.annotations)) for p in old.pictures
        ]
        for p, q in zip(new.pictures, old.pictures, strict=True):
            assert [(a.id, a.category, a.area, a.iscrowd) for a in p.annotations] == [
                (a.id, a.category, a.area, a.iscrowd) for a in q.annotations
            ]
            assert p.path.samefile(q.path)


def test_a_picture_listed_twice_keeps_all_its_objects_in_labelme(tmp_path):
    write(tmp_path / "images" / "a.png")
    put(tmp_path / "annotations" / "instance_train.json", tree("a.png", "a.png"))
    convert(tmp_path, tmp_path / "out", to="labelme")
    with reading(tmp_path / "out") as [part]:
        assert [len(picture.annotations) for picture in part.pictures] == [2]


def test_a_dataset_without_any_mask_is_refused_and_nothing_is_left(tmp_path):
    write(tmp_path / "images" / "a.png")
    boxes = tree("a.png")
    boxes["annotations"][0]["segmentation"] = []
    put(tmp_path / "annotations" / "instance_train.json", boxes)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match="no annotation has a mask"):
        convert(tmp_path, tmp_path / "out")
    assert sorted(tmp_path.rglob("*")) == before


def test_formats_are_told_apart(tmp_path):
    with pytest.raises(UserError, match="no such file or folder"), reading(tmp_path / "nowhere"):
        pass
    with pytest.raises(UserError, match="looks like none of labelme, voc, yolo, cityscapes, coco"):
        detect(tmp_path)
    put(tmp_path / "annotations.json", tree("a.png"))
    put(tmp_path / "a.json", {"shapes": []})
    with pytest.raises(UserError, match="looks like labelme and coco; say which with --from"):
        detect(tmp_path)
