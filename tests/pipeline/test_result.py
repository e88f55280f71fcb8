from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools.coco import COCO

from toolkit.data.convert import labelme
from toolkit.data.detections import Detections, place
from toolkit.data.masks import Crop, id_map_to_rles, polygons_to_mask, rle_to_mask, segmentation_to_mask
from toolkit.errors import UserError
from toolkit.pipeline.inputs import Picture
from toolkit.pipeline.result import Result

LABELS = ["disc", "größe"]


def made(
    seed: int = 0,
    *,
    size: tuple[int, int] = (48, 64),
    rows: int = 5,
    clip: bool = False,
    path: str | None = "in/ä.png",
    page: int | None = None,
) -> Result:
    """Random rows of a network with an input of 32 x 32, carried over to a random picture."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform(-4, 36, (rows, 2, 2)).astype(np.float32)
    found = place(
        np.concatenate([corners.min(1), corners.max(1)], axis=1),
        np.sort(rng.uniform(0.1, 1, rows).astype(np.float32))[::-1],
        rng.integers(0, len(LABELS), rows),
        rng.normal(0, 1, (rows, 8, 8)).astype(np.float32),
        size=size,
        network_size=(32, 32),
        scale=(32 / size[0], 32 / size[1]),
        mask_clip=clip,
    )
    return Result(Picture(rng.integers(0, 256, (*size, 3), dtype=np.uint8), path, page), found, LABELS)


def test_keys_and_kinds_are_those_of_paddlex() -> None:
    result = made()
    assert list(result) == ["input_path", "page_index", "input_img", "boxes", "masks"]
    assert result["input_path"] == "in/ä.png"
    assert result["page_index"] is None
    assert len(result["boxes"]) == len(result["masks"]) > 0
    for box, mask in zip(result["boxes"], result["masks"], strict=True):
        assert list(box) == ["cls_id", "label", "score", "coordinate"]
        assert box["label"] == LABELS[box["cls_id"]]
        x1, y1, x2, y2 = (round(side) for side in box["coordinate"])
        assert mask.shape == (y2 - y1, x2 - x1)
        assert mask.dtype == np.uint8


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31), height=st.integers(1, 75), width=st.integers(1, 75), clip=st.booleans())
def test_full_masks_have_the_pictures_size_and_all_forms_agree(seed: int, height: int, width: int, clip: bool) -> None:
    result = made(seed, size=(height, width), clip=clip)
    masks = result.masks()
    assert len(masks) == len(result["boxes"])
    for box, cut, full, rle in zip(result["boxes"], result["masks"], masks, result.to_rle(), strict=True):
        assert full.shape == (height, width)
        assert (rle_to_mask(rle) == full).all()
        x1, y1, x2, y2 = (round(side) for side in box["coordinate"])
        assert (full[y1:y2, x1:x2] == cut).all()
        assert full.sum() == cut.sum(), "nothing is set beside the box"
        assert 0 <= box["coordinate"][0] < box["coordinate"][2] <= width
        assert 0 <= box["coordinate"][1] < box["coordinate"][3] <= height
    result.img["res"].verify()


def test_saved_json_and_picture_agree(tmp_path: Path) -> None:
    result = made()
    result.save_all(tmp_path)
    tree = json.loads((tmp_path / "ä_res.json").read_text(encoding="utf-8"))
    assert tree == result.json["res"]
    assert list(tree) == ["input_path", "page_index", "boxes", "masks"]
    # What the drawing changed beyond frames and labels is what the JSON says is set.
    before, after = result["input_img"][..., ::-1].astype(int), np.asarray(Image.open(tmp_path / "ä_res.png"))
    assert after.shape == before.shape
    changed = np.abs(after - before).max(axis=2) > 0
    union = np.zeros(result.size, bool)
    for box, mask in zip(tree["boxes"], tree["masks"], strict=True):
        x1, y1, x2, y2 = (round(side) for side in box["coordinate"])
        union[y1:y2, x1:x2] |= np.array(mask, bool)
    assert changed[union].mean() > 0.99
    assert union.sum() == np.logical_or.reduce(result.masks()).sum()


def test_instances_drawn_are_those_in_the_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given_to_draw: dict[str, object] = {}

    def record(rgb: np.ndarray, **arguments: object) -> np.ndarray:
        given_to_draw.update(arguments)
        return rgb

    monkeypatch.setattr("toolkit.pipeline.result.draw_instances", record)
    result = made()
    result.save_to_img(tmp_path)
    boxes = result.json["res"]["boxes"]
    assert given_to_draw["labels"] == [box["label"] for box in boxes]
    assert given_to_draw["scores"] == [box["score"] for box in boxes]
    assert given_to_draw["boxes"] == [tuple(round(side) for side in box["coordinate"]) for box in boxes]
    assert [m.tolist() for m in given_to_draw["masks"]] == result.json["res"]["masks"]  # type: ignore[attr-defined]


def test_file_names(tmp_path: Path) -> None:
    assert made().save_to_json(tmp_path / "new" / "x.json") == tmp_path / "new" / "x.json"
    assert made().save_to_img(tmp_path / "y.jpg").read_bytes()[:2] == b"\xff\xd8"
    assert made(path="https://host/a%20b.jpg?x=1").save_to_img(tmp_path) == tmp_path / "a b_res.jpg"
    nameless = made(path=None)
    assert nameless.save_to_json(tmp_path).stem == nameless.save_to_img(tmp_path).stem
    assert nameless.save_to_img(tmp_path).suffix == ".png"


def test_pages_are_named_as_paddlex_names_them(tmp_path: Path) -> None:
    for number in range(2):
        result = made(path="in/a.b.pdf", page=number)
        assert result["page_index"] == result.json["res"]["page_index"] == number
        result.save_all(tmp_path)
        result.save_masks(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"a.b_{number}_{rest}" for number in range(2) for rest in ("masks.png", "res.json", "res.png")
    ]
    made(path="https://host/x/clip.mp4?t=1", page=7).save_to_json(tmp_path / "url")
    assert (tmp_path / "url" / "clip_7_res.json").is_file()


def test_polygons_draw_the_masks() -> None:
    squares = np.zeros((6, 9), np.uint8)
    squares[1:4, 1:4] = squares[2:6, 5:8] = 1
    found = Detections(
        np.array([[3, 2, 12, 8]], np.float32),
        np.array([0.9], np.float32),
        np.array([0]),
        [Crop(squares, 3, 2)],
        (20, 30),
    )
    result = Result(Picture(np.zeros((20, 30, 3), np.uint8), None), found, LABELS)
    [polygons] = result.to_polygons()
    assert len(polygons) == 2
    assert (polygons_to_mask([np.array(p) for p in polygons], (20, 30)) == result.masks()[0]).all()
    rough = made(3, size=(200, 200))
    points = [sum(len(p) for one in rough.to_polygons(tolerance=t) for p in one) for t in (0.0, 1.5)]
    assert points[1] < points[0] / 2
    assert json.loads(json.dumps(rough.to_polygons())) == rough.to_polygons()


def test_coco_entries_are_what_pycocotools_loads() -> None:
    result = made(size=(75, 50))
    truth = COCO()
    truth.dataset = {
        "images": [{"id": 17, "height": 75, "width": 50}],
        "annotations": [],
        "categories": [{"id": 4, "name": "disc"}, {"id": 9, "name": "größe"}],
    }
    truth.createIndex()
    rows = json.loads(json.dumps(result.to_coco(image_id=17, category_ids=[4, 9])))
    loaded = truth.loadRes(rows)
    annotations = loaded.loadAnns(loaded.getAnnIds(imgIds=[17]))
    assert len(annotations) == len(result["boxes"]) > 0
    for annotation, box, mask in zip(annotations, result["boxes"], result.masks(), strict=True):
        assert annotation["category_id"] == {"disc": 4, "größe": 9}[box["label"]]
        assert annotation["score"] == box["score"]
        x, y, width, height = annotation["bbox"]
        assert [x, y, x + width, y + height] == pytest.approx(box["coordinate"])
        assert (loaded.annToMask(annotation) == mask).all()
    assert {row["category_id"] for row in result.to_coco(image_id=1)} <= {1, 2}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**31), height=st.integers(1, 75), width=st.integers(1, 75), kind=st.integers(0, 2))
def test_labelme_comes_back_pixel_for_pixel(
    tmp_path_factory: pytest.TempPathFactory, seed: int, height: int, width: int, kind: int
) -> None:
    folder = tmp_path_factory.mktemp("labelme")
    path, page = [(str(folder / "ä.png"), None), (None, None), ("doc.pdf", 3)][kind]
    result = made(seed, size=(height, width), path=path, page=page)
    rgb = np.ascontiguousarray(result["input_img"][..., ::-1])
    if kind == 0:
        Image.fromarray(rgb).save(folder / "ä.png")
    (folder / f"{result.stem}.json").write_text(json.dumps(result.to_labelme()), encoding="utf-8")
    (folder / "labels.txt").write_text("disc\ngröße\n", encoding="utf-8")
    [split] = labelme.read(folder, scratch=folder / "scratch")
    [picture] = split.pictures
    assert (np.asarray(Image.open(picture.path)) == rgb).all()
    expected = [(box["cls_id"], mask) for box, mask in zip(result["boxes"], result.masks(), strict=True) if mask.any()]
    assert [annotation.category for annotation in picture.annotations] == [label for label, _ in expected]
    for annotation, (_, mask) in zip(picture.annotations, expected, strict=True):
        assert (segmentation_to_mask(annotation.segmentation, (height, width)) == mask).all()


@pytest.mark.parametrize("rows", [0, 5, 300])
def test_masks_as_a_picture_of_numbers(tmp_path: Path, rows: int) -> None:
    result = made(1, size=(120, 90), rows=rows)
    path = result.save_masks(tmp_path)
    assert path == tmp_path / "ä_masks.png"
    assert result.save_masks(tmp_path / "new" / "x.png").is_file()
    ids = np.asarray(Image.open(path))
    assert ids.dtype == (np.uint8 if rows < 256 else np.uint16)
    assert ids.shape == (120, 90)
    seen = id_map_to_rles(ids)
    taken = np.zeros((120, 90), bool)
    for number, mask in enumerate(result.masks(), start=1):
        free = (mask > 0) & ~taken
        assert ((ids == number) == free).all(), "the better one is seen"
        assert (number in seen) == free.any()
        taken |= mask > 0
    assert ((ids > 0) == taken).all()
    with pytest.raises(UserError, match=r"x\.jpg: masks are saved as PNG"):
        result.save_masks(tmp_path / "x.jpg")


def test_nothing_found(tmp_path: Path) -> None:
    result = made(rows=0)
    assert result.json == {"res": {"input_path": "in/ä.png", "page_index": None, "boxes": [], "masks": []}}
    assert json.loads(result.save_to_json(tmp_path).read_text(encoding="utf-8")) == result.json["res"]
    assert (np.asarray(result.img["res"]) == result["input_img"][..., ::-1]).all()


def test_print(capsys: pytest.CaptureFixture[str]) -> None:
    made().print(json_format=True)
    shown = json.loads(capsys.readouterr().out)["res"]
    assert shown["masks"] == "..."
    assert shown["boxes"] == made()["boxes"]
    made().print()
    assert "'masks': '...'" in capsys.readouterr().out
