from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.pipeline.samples import boxes_of, make_folder, swapped, truth
from toolkit.data.detections import Detections
from toolkit.data.masks import Crop
from toolkit.errors import UserError
from toolkit.pipeline.certificate import Agreement, Certificate, check, compare, read_agreements
from toolkit.pipeline.exported import read_exported
from toolkit.pipeline.sample import read_sample, write_detections


def alike(rows: int) -> Detections:
    """Rows of one class with boxes and scores close to one another, and no mask, as early in training."""
    step = np.arange(rows, dtype=np.float32)[:, None]
    return Detections(
        boxes=np.array([[10.0, 10.0, 50.0, 50.0]], np.float32) + 0.3 * step,
        scores=0.05 - 1e-4 * step[:, 0],
        labels=np.zeros(rows, np.int64),
        masks=[Crop(np.zeros((0, 0), np.uint8), 0, 0)] * rows,
        size=(64, 64),
    )


def test_rows_that_are_alike_match_each_their_own() -> None:
    agreement = compare([alike(20)], [alike(20)])
    assert (agreement.rows, agreement.matched) == (20, 20)
    assert agreement.score == agreement.box == 0
    assert agreement.holds


def test_a_row_that_moved_does_not_match() -> None:
    moved = alike(1)
    moved.boxes[:] += 1
    assert compare([alike(1)], [moved]).matched == 0


def test_the_sample_comes_back_as_it_was_written(tmp_path: Path) -> None:
    make_folder(tmp_path)
    sample = read_sample(tmp_path)
    assert sample is not None
    assert sample.annotated
    assert [(p.height, p.width) for p in sample.split.pictures] == [(96, 128), (320, 640)], "made smaller to 640"
    for found, expected in zip(sample.trained, truth(sample.split), strict=True):
        assert compare([expected], [found]) == compare([expected], [expected])
        assert found.boxes.dtype == np.float32
        assert found.scores.tolist() == expected.scores.tolist()


def test_what_rounding_may_set_comes_back_with_the_sample(tmp_path: Path) -> None:
    exported = read_exported(make_folder(tmp_path))
    sample = read_sample(tmp_path)
    assert sample is not None
    assert sample.uncertain is None, "as of version 0.1"
    assert check(exported, sample, boxes_of(sample), precision="f32").masks_wrong is None
    assert check(exported, sample, boxes_of(sample), precision="f32").holds
    edges = [[Crop(np.ones((3, 2), np.uint8), 5, i) for i in range(len(found))] for found in sample.trained]
    write_detections(tmp_path, replace(sample, uncertain=edges))
    again = read_sample(tmp_path)
    assert again is not None
    assert again.uncertain is not None
    for crops, expected in zip(again.uncertain, edges, strict=True):
        assert [crop.extent for crop in crops] == [crop.extent for crop in expected]
        assert all(crop.mask.all() for crop in crops)
    assert check(exported, again, boxes_of(again), precision="f32").masks_wrong == 0


def test_an_engine_that_finds_the_same_holds_and_one_with_swapped_columns_does_not(tmp_path: Path) -> None:
    exported = read_exported(make_folder(tmp_path))
    sample = read_sample(tmp_path)
    assert sample is not None
    for precision in ("f32", "bf16", "int8"):
        right = check(exported, sample, boxes_of(sample), precision=precision)
        assert right.holds
        assert right.mask_ap_change == right.box_ap_change == 0
        wrong = check(exported, sample, swapped(boxes_of(sample)), precision=precision)
        assert not wrong.holds
        assert wrong.mask_ap_change == 0, "masks alone do not show it"
        assert wrong.box_ap_change is not None
        assert wrong.box_ap_change < -0.9


def test_of_a_model_that_has_hardly_learned_a_fifth_of_the_rows_may_differ_and_those_with_ties() -> None:
    rows = Agreement("f32", 200, 160, 0.0, 0.0, 0.06, 0.5, mask_ap_change=0.01, box_ap_change=0.01, masks_wrong=0)
    assert not rows.holds
    early = replace(rows, learnt=False)
    assert early.holds
    assert "shows little" in early.describe()
    assert not replace(early, masks_wrong=1).holds
    assert not replace(early, matched=159).holds
    assert replace(early, matched=100, tied=150, tied_missing=80).holds
    assert not replace(early, matched=100, tied=150, tied_missing=70).holds
    assert replace(early, matched=1, tied=200, tied_missing=199).holds
    assert not replace(early, matched=0, tied=200, tied_missing=200).holds, "none is found"
    # Rows of one score and box are found in another order: of which the mask is, ties decide too.
    assert replace(early, matched=200, masks_wrong=30, tied=190, tied_missing=30).holds
    assert not replace(early, matched=200, masks_wrong=200, tied=200, tied_missing=200).holds, "no mask is right"
    assert not replace(early, box_ap_change=-0.06).holds
    lower = replace(early, precision="bf16", masks_wrong=None, mask_ap_change=0.0, box_ap_change=0.0)
    assert lower.holds
    assert not replace(lower, matched=20).holds


def test_what_certificates_of_version_0_1_say_of_a_model_that_has_hardly_learned_stands() -> None:
    early = Agreement("f32", 200, 120, 0.0, 0.0, 0.06, 0.98, mask_ap_change=0.0, box_ap_change=0.0, learnt=False)
    assert early.holds
    assert not replace(early, learnt=True).holds
    assert not replace(early, matched=99).holds
    assert not replace(early, mask_iou_mean=0.8).holds


@pytest.mark.parametrize(("rows", "most"), [(1, 0), (2, 1), (50, 1), (100, 2), (500, 10)])
def test_wrong_masks_count_as_rows_that_are_missing(rows: int, most: int) -> None:
    right = Agreement("f32", rows, rows, 0.0, 0.0, 1.0, 1.0, masks_wrong=0)
    assert right.holds
    assert replace(right, masks_wrong=most).holds
    assert not replace(right, masks_wrong=most + 1).holds
    assert replace(right, matched=rows - most).holds
    assert not replace(right, matched=rows - most, masks_wrong=1).holds


def test_the_mask_ap_of_right_masks_may_change_since_rounding_counts_in_small_ones() -> None:
    right = Agreement("f32", 10, 10, 0.0, 0.0, 0.75, 0.9, mask_ap_change=0.02, box_ap_change=0.0, masks_wrong=0)
    assert right.holds
    assert not replace(right, masks_wrong=1).holds
    assert not replace(right, box_ap_change=0.02).holds


def test_one_wrong_mask_is_counted_and_takes_no_other_row_away() -> None:
    scene = objects(4)
    certain = [[Crop(np.zeros((0, 0), np.uint8), 0, 0)] * 4]
    assert compare([scene], [scene], uncertain=certain).masks_wrong == 0
    moved = replace(scene, masks=[replace(scene.masks[0], x=scene.masks[0].x + 1), *scene.masks[1:]])
    agreement = compare([scene], [moved], uncertain=certain)
    assert (agreement.matched, agreement.masks_wrong) == (4, 1)
    assert "4 of 4 rows matched, 1 masks wrong" in agreement.describe()
    assert compare([scene], [moved]).masks_wrong is None
    assert compare([scene], [moved], precision="bf16", uncertain=certain).masks_wrong is None
    # Where both columns are uncertain.
    band = Crop(np.ones((20, 12), np.uint8), scene.masks[0].x - 1, 0)
    assert compare([scene], [moved], uncertain=[[band, *certain[0][1:]]]).masks_wrong == 0


def test_rows_of_equal_scores_may_change_places() -> None:
    scene = objects(4)
    scene.scores[:] = [0.9, 0.5, 0.5 + 5e-7, 0.3]
    certain = [[Crop(np.zeros((0, 0), np.uint8), 0, 0)] * 4]
    order = np.array([0, 2, 1, 3])
    changed = Detections(
        scene.boxes[order], scene.scores[order], scene.labels[order], [scene.masks[i] for i in order], scene.size
    )
    agreement = compare([scene], [changed], uncertain=certain)
    assert (agreement.matched, agreement.masks_wrong, agreement.tied, agreement.tied_missing) == (4, 0, 2, 0)
    lost = compare([scene], [scene.kept(np.array([True, True, False, False]))], uncertain=certain)
    assert (lost.matched, lost.tied, lost.tied_missing) == (2, 2, 1)
    assert lost.missing == 2
    assert replace(lost, learnt=False).missing == 1


def objects(count: int) -> Detections:
    """Squares side by side."""
    x = 16.0 * np.arange(count, dtype=np.float32)
    return Detections(
        boxes=np.stack([x, 0 * x, x + 10, 0 * x + 10], axis=1),
        scores=np.linspace(0.9, 0.5, count, dtype=np.float32),
        labels=np.zeros(count, np.int64),
        masks=[Crop(np.ones((10, 10), np.uint8), 16 * i, 0) for i in range(count)],
        size=(20, 16 * count),
    )


def test_what_the_trained_model_finds_on_the_sample_says_whether_it_has_learnt(tmp_path: Path) -> None:
    exported = read_exported(make_folder(tmp_path))
    sample = read_sample(tmp_path)
    assert sample is not None
    assert check(exported, sample, boxes_of(sample), precision="f32").learnt
    lost = [found.kept(np.zeros(len(found), bool)) for found in sample.trained]
    assert not check(exported, replace(sample, trained=lost), boxes_of(sample), precision="f32").learnt


@pytest.mark.parametrize(("precision", "allowed"), [("f32", 0.001), ("bf16", 0.003), ("int8", 0.01)])
def test_allowances(precision: str, allowed: float) -> None:
    good = Agreement(precision, 10, 10, 0.0, 0.0, 1.0, 1.0, mask_ap_change=allowed, box_ap_change=-allowed)
    assert good.holds
    assert not replace(good, mask_ap_change=-allowed - 1e-6).holds
    assert not replace(good, box_ap_change=allowed + 1e-6).holds
    assert replace(good, matched=3).holds == (precision != "f32"), "in f32 each row counts"
    assert replace(good, mask_ap_change=None, box_ap_change=None).holds == (precision == "f32")


def test_certificates_are_read_back_and_those_of_the_first_version_too(tmp_path: Path) -> None:
    exported = read_exported(make_folder(tmp_path))
    agreement = Agreement("bf16", 10, 9, 0.01, 1.5, 0.5, 0.9, mask_ap_change=0.1, box_ap_change=0.0)
    Certificate("m", 2, "validation", 1.0, 0.5, {"openvino_bf16": agreement}).write(tmp_path)
    assert read_agreements(exported) == {"openvino_bf16": agreement}
    tree = json.loads((tmp_path / "certificate.json").read_text())
    assert tree["backends"]["openvino_bf16"]["holds"] is False
    first = {"rows": 5, "matched": 5, "score": 0.0, "box": 0.0, "mask_iou_min": 1.0, "mask_iou_mean": 1.0}
    (tmp_path / "certificate.json").write_text(json.dumps({"backends": {"onnxruntime": first}}))
    assert read_agreements(exported)["onnxruntime"].holds
    (tmp_path / "certificate.json").write_text("{}")
    with pytest.raises(UserError, match=r"certificate\.json: not a certificate that can be read"):
        read_agreements(exported)
