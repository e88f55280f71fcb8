from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from toolkit.data.detections import place
from toolkit.data.masks import rle_to_mask
from toolkit.pipeline.inputs import Picture
from toolkit.pipeline.result import Result

LABELS = ["disc", "größe"]


def made(
    seed: int = 0, *, size: tuple[int, int] = (48, 64), rows: int = 5, clip: bool = False, path: str | None = "in/ä.png"
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
    return Result(Picture(rng.integers(0, 256, (*size, 3), dtype=np.uint8), path), found, LABELS)


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
