"""What the columns say is what the entries say, and is judged as `toolkit.data.masks` judges one by one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.data.findings.broken import HEIGHT, WIDTH, Broken, square
from toolkit.data.findings.file import boxes, integers, numbers, read_file
from toolkit.data.findings.geometry import check_masks, polygons_of
from toolkit.data.findings.looks import take_declared_size
from toolkit.data.findings.record import Findings
from toolkit.data.findings.structure import check_categories, check_image_ids, check_references
from toolkit.data.layouts import Source
from toolkit.data.masks import MaskError, parse_polygons, parse_rle, rle_area, segmentation_to_rle

anything = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=3)
numbers_of = st.integers(-60, 120) | st.floats(-60, 120, width=16)
segmentations = (
    st.lists(st.lists(numbers_of, max_size=9), max_size=4)
    | st.lists(st.lists(anything, max_size=9), max_size=3)
    | st.fixed_dictionaries({"size": st.just([HEIGHT, WIDTH]), "counts": st.lists(st.integers(0, 900), max_size=5)})
    | st.fixed_dictionaries({"size": st.just([HEIGHT, WIDTH]), "counts": st.text(max_size=8)})
    | anything
)


def read(path: Path, segmentations: list[Any]) -> tuple[Any, Findings]:
    tree = Broken(path).trees["train"]
    tree["annotations"] = [
        {"id": i, "image_id": 1, "category_id": 7, "segmentation": s} for i, s in enumerate(segmentations)
    ]
    (path / "a.json").write_text(json.dumps(tree))
    findings = Findings()
    file = read_file(Source("train", path / "a.json", (path,), path), findings)
    if file:
        check_categories(file, findings)
        sound = check_image_ids(file, findings)
        take_declared_size(file, 0)
        check_references(file, sound, findings)
        check_masks(file, findings)
    return file, findings


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(st.lists(segmentations, min_size=1, max_size=6))
def test_segmentations_are_judged_alike(tmp_path, values):
    file, findings = read(tmp_path, values)
    if file is None:
        assert {f.code.name for f in findings} == {"json-syntax"}
        return
    read_back = [entry["segmentation"] for entry in json.loads((tmp_path / "a.json").read_text())["annotations"]]
    for row, value in enumerate(read_back):
        codes = {f.code.name for f in findings if f.section == "annotations" and f.row == row}
        refused = codes - {"polygon-few-points", "mask-empty"}
        assert bool(refused) == bool(file.refused[row]), codes
        size = (HEIGHT, WIDTH)
        try:
            if isinstance(value, dict):
                expected: Any = parse_rle(value, size)
            else:
                expected = parse_polygons([] if value is None else value, size)
        except MaskError:
            expected = None
        if expected is None:
            # Where several polygons break several rules, the one that is named may differ.
            assert refused
            continue
        if refused:  # Truth values pass for numbers in parse_polygons.
            assert any(isinstance(x, bool) for part in value for x in part)
            continue
        assert file.measured[row]
        area = rle_area(segmentation_to_rle(expected, size)) if expected else 0
        assert bool(file.empty[row]) == (area == 0)
        if not isinstance(value, dict):
            for mine, other in zip(polygons_of(file.outlines, row), expected, strict=True):
                np.testing.assert_array_equal(mine, other)


def test_polygons_that_are_put_back_piece_by_piece(tmp_path, monkeypatch):
    monkeypatch.setattr("toolkit.data.findings.file.CHUNK", 3)
    values = [[square(i % 9, 3, 5), square(20, i % 7, 6)] for i in range(20)]
    file, findings = read(tmp_path, values)
    assert len(findings) == 0
    for row, value in enumerate(values):
        assert [polygon.tolist() for polygon in polygons_of(file.outlines, row)] == value


@pytest.mark.parametrize("trap", ['"\\u0000"', '"\\"segmentation\\": [[1,2,3,4,5,6]]"', '{"segmentation": [[1, 2]]}'])
def test_what_looks_like_a_polygon_elsewhere_does_no_harm(tmp_path, trap):
    tree = Broken(tmp_path).trees["train"]
    text = json.dumps(tree)
    (tmp_path / "a.json").write_text(text.replace('"iscrowd": 0', f'"iscrowd": 0, "note": {trap}'))
    findings = Findings()
    file = read_file(Source("train", tmp_path / "a.json", (tmp_path,), tmp_path), findings)
    assert len(findings) == 0
    for row, entry in enumerate(tree["annotations"]):
        assert [polygon.tolist() for polygon in polygons_of(file.outlines, row)] == entry["segmentation"]


@given(st.lists(anything, max_size=5))
def test_columns_of_numbers(values):
    found, sound = integers(values)
    assert sound.tolist() == [type(v) is int and -(2**63) <= v < 2**63 for v in values]
    assert found[sound].tolist() == [value for value, ok in zip(values, sound, strict=True) if ok]
    for number, value in zip(numbers(values).tolist(), values, strict=True):
        assert number == float(value) if type(value) in (int, float) and value == value else number != number
    assert boxes([values]).shape == (1, 4)
