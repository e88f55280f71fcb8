"""Whatever is wrong with a dataset, its mended copy is sound, says what was done, and its source stays as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.findings.broken import HEIGHT, SPOILERS, WIDTH, Broken, encoded, noise, square
from toolkit.data.coco import find_dataset
from toolkit.data.findings.check import check_sources
from toolkit.data.layouts import find_sources
from toolkit.data.masks import segmentation_to_mask
from toolkit.data.mend import clip
from toolkit.data.repair import Repair, repair
from toolkit.errors import UserError

HOPELESS = {
    *("cut off", "empty file", "nested too deep", "trailing comma", "a list", "no images", "annotations as object"),
    *("no pictures", "no annotations", "no categories", "val_missing", "boxes_only", "a number beyond floats"),
}
UNMENDED = {
    *("image-tiny", "image-thin", "image-blank", "image-similar-in-both-splits", "category-unused", "class-few"),
    *("class-not-in-val", "split-small", "annotation-two-classes"),
}
"""Warnings that no program can answer."""


def snapshot(root: Path) -> dict[str, tuple[bytes, int]]:
    return {str(p.relative_to(root)): (p.read_bytes(), p.stat().st_mtime_ns) for p in root.rglob("*") if p.is_file()}


def mended(root: Path, out: Path) -> Repair:
    sources = find_sources(root)
    return repair(check_sources(sources), sources, out)


@pytest.mark.parametrize("name", [name for name in SPOILERS if name not in HOPELESS])
def test_the_mended_copy_is_sound(name: str, tmp_path: Path) -> None:
    broken = Broken(tmp_path / "data")
    SPOILERS[name](broken, np.random.default_rng([5, *name.encode()]))
    broken.write()
    before = snapshot(tmp_path / "data")
    result = mended(tmp_path / "data", tmp_path / "mended")
    assert snapshot(tmp_path / "data") == before
    again = check_sources(find_sources(tmp_path / "mended")).findings
    assert {f.code.name for f in again if f.code.severity != "note"} <= UNMENDED
    assert {row["code"] for row in result.remaining} == {f.code.name for f in again if f.code.severity != "note"}
    find_dataset(tmp_path / "mended")
    assert json.loads((tmp_path / "mended" / "repair.json").read_text()) == json.loads(
        json.dumps(result.as_dict(), default=str)
    )


@pytest.mark.parametrize("name", sorted(HOPELESS))
def test_what_leaves_nothing_to_train_on_is_refused(name: str, tmp_path: Path) -> None:
    broken = Broken(tmp_path / "data")
    SPOILERS[name](broken, np.random.default_rng(0))
    broken.write()
    with pytest.raises(UserError, match="cannot be mended"):
        mended(tmp_path / "data", tmp_path / "mended")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def all_at_once(root: Path) -> Broken:
    """Nearly every spoiler in one dataset, each somewhere else."""
    whole = Broken(root, times=40)
    left = [name for name in SPOILERS if name not in HOPELESS and name not in ("group", "classes_in_another_order")]
    # Those that leave no object where another one would go come last.
    for name in sorted(left, key=lambda name: "no object" in name):
        for seed in range(9):
            rng = np.random.default_rng([seed, *name.encode()])
            try:
                SPOILERS[name](whole, rng)
            except (KeyError, TypeError):
                continue  # Another one has been here before.
            break
    whole.raw = {}
    return whole


def test_errors_of_every_kind_at_once(tmp_path: Path) -> None:
    all_at_once(tmp_path / "data").write()
    codes = {f.code.name for f in check_sources(find_sources(tmp_path / "data")).findings}
    assert len(codes) >= 60, sorted(codes)
    mended(tmp_path / "data", tmp_path / "one")
    mended(tmp_path / "data", tmp_path / "two")
    one, two = ({name: data for name, (data, _) in snapshot(tmp_path / n).items()} for n in ("one", "two"))
    assert {**one, "repair.json": one["repair.json"].replace(b"/one/", b"/two/")} == two
    findings = check_sources(find_sources(tmp_path / "one")).findings
    assert not findings.count("error"), [f.line() for f in findings if f.code.severity == "error"]
    dataset = find_dataset(tmp_path / "one")
    assert len(dataset.train.pictures) > 20


def annotation(root: Path, number: int) -> dict[str, Any]:
    tree = json.loads((root / "annotations" / "instance_train.json").read_text())
    return next(a for a in tree["annotations"] if a["id"] == number)


def test_masks_stay_what_they_were_meant_to_be(tmp_path: Path) -> None:
    broken = Broken(tmp_path / "data")
    entries = broken.trees["train"]["annotations"]
    meant = [square(4, 5, 12)]
    for entry, segmentation in zip(
        entries,
        (
            meant[0],
            [[[4, 5], [16, 5], [16, 17], [4, 17]]],
            [["4", "5", "16", "5", "16", "17", "4", "17"]],
            [*meant, [1, 1], [3, 3, 3, 3, 3, 3]],
            [[-5, 5, 16, 5, 16, 17, -5, 17]],
            [[2, 2, 20, 20, 20, 2, 2, 20]],
        ),
        strict=False,
    ):
        entry["segmentation"] = segmentation
    broken.write()
    mended(tmp_path / "data", tmp_path / "out")
    size = (HEIGHT, WIDTH)
    expected = segmentation_to_mask([np.array(meant[0], float)], size)
    for number in (50, 51, 52, 53):
        given = annotation(tmp_path / "out", number)
        mask = segmentation_to_mask([np.array(p, float) for p in given["segmentation"]], size)
        np.testing.assert_array_equal(mask, expected)
        assert (given["bbox"], given["area"]) == ([4, 5, 12, 12], 144)
    cut = annotation(tmp_path / "out", 54)
    assert (cut["bbox"], cut["area"]) == ([0, 5, 16, 12], 192)
    bow = annotation(tmp_path / "out", 55)
    np.testing.assert_array_equal(
        segmentation_to_mask(bow["segmentation"], size),
        segmentation_to_mask([np.array([2.0, 2, 20, 20, 20, 2, 2, 20])], size),
    )


def test_annotations_are_stretched_with_pictures_that_were_resized(tmp_path: Path) -> None:
    broken = Broken(tmp_path / "data")
    broken.files["images/train 0.png"] = encoded(noise(1, (2 * HEIGHT, 2 * WIDTH)))
    broken.write()
    mended(tmp_path / "data", tmp_path / "out")
    before, after = broken.trees["train"]["annotations"][0], annotation(tmp_path / "out", 50)
    assert after["segmentation"] == [[2 * c for c in before["segmentation"][0]]]
    assert after["bbox"] == [2 * c for c in before["bbox"]]
    assert after["area"] == 4 * before["area"]


def test_a_picture_in_both_splits_is_left_to_val(tmp_path: Path) -> None:
    broken = Broken(tmp_path / "data")
    broken.files["images/val 1.png"] = broken.files["images/train 2.png"]
    broken.write()
    result = mended(tmp_path / "data", tmp_path / "out")
    assert {"split": "train", "path": "images[2]", "id": 3, "what": "is in val too"} in result.left_out
    dataset = find_dataset(tmp_path / "out")
    assert (len(dataset.train.pictures), len(dataset.val.pictures)) == (5, 3)


def test_clip_keeps_what_is_inside() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        polygon = rng.uniform(-10, 60, 2 * int(rng.integers(3, 12)))
        cut = clip(polygon, (HEIGHT, WIDTH))
        whole = segmentation_to_mask([polygon], (HEIGHT, WIDTH))
        if len(cut) < 6:
            assert not whole.any()
            continue
        assert cut.min() >= 0
        assert (cut.reshape(-1, 2) <= (WIDTH, HEIGHT)).all()
        # pycocotools rounds corners to fifths of pixels.
        assert (segmentation_to_mask([cut], (HEIGHT, WIDTH)) != whole).mean() < 0.02
