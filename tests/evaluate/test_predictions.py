"""COCO results files of other tools, measured as pycocotools measures them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as codec

from tests.evaluate.test_ap import by_pycocotools, random_detections, split
from toolkit.data.coco import Split
from toolkit.data.masks import full, mask_to_rle
from toolkit.errors import UserError
from toolkit.evaluate.ap import Metrics, evaluate
from toolkit.evaluate.predictions import evaluate_predictions, read_predictions

__all__ = ["split"]  # a fixture


def rows_of(split: Split, *, seed: int, count: int) -> list[dict[str, Any]]:
    """As a tool with figures of double precision writes them, in no order."""
    rng = np.random.default_rng(seed)
    rows = []
    for picture_id, found in random_detections(split, seed=seed, count=count).items():
        for label, mask, (x1, y1, x2, y2) in zip(found.labels, found.masks, found.boxes.tolist(), strict=True):
            rows.append(
                {
                    "image_id": picture_id,
                    "category_id": split.category_ids[label],
                    "segmentation": mask_to_rle(full(mask, found.size)),
                    "bbox": [round(x1, 2), round(y1, 2), round(x2 - x1, 2), round(y2 - y1, 2)],
                    # Many are equal in single precision, and some in double too.
                    "score": round(0.5 + 1e-9 * float(rng.integers(0, 20)), 12),
                }
            )
    rng.shuffle(rows)  # type: ignore[arg-type]
    return rows


def written(rows: Any, folder: Path) -> Path:
    file = folder / "results.json"
    file.write_text(json.dumps(rows))
    return file


def measured(rows: Any, split: Split, folder: Path) -> Metrics:
    return evaluate(read_predictions(written(rows, folder), split), split)


@pytest.mark.parametrize("count", [1, 7, 130])
def test_figures_are_those_of_pycocotools(split: Split, count: int, tmp_path: Path) -> None:
    rows = rows_of(split, seed=count, count=count)
    metrics = measured(rows, split, tmp_path)
    # Where there are boxes, pycocotools takes the size of a mask to be that of its box.
    masks = [{key: value for key, value in row.items() if key != "bbox"} for row in rows]
    expected = by_pycocotools(split, masks, "segm")
    assert {name: -1 if value is None else value for name, value in metrics.mask.items()} == expected
    assert metrics.pictures == len(split.pictures), "those without detections count too"


def test_without_boxes_they_are_those_of_the_masks(split: Split, tmp_path: Path) -> None:
    rows = [{k: v for k, v in row.items() if k != "bbox"} for row in rows_of(split, seed=3, count=9)]
    metrics = measured(rows, split, tmp_path)
    for row in rows:
        row["bbox"] = list(codec.toBbox(row["segmentation"]))
    assert metrics.box == measured(rows, split, tmp_path).box
    assert metrics.box_ap > 0


def test_polygons_and_no_detection_at_all(split: Split, tmp_path: Path) -> None:
    square = {"image_id": 0, "category_id": 7, "score": 1, "segmentation": [[2, 2, 12, 2, 12, 12, 2, 12]]}
    found = dict(read_predictions(written([square], tmp_path), split))
    assert found[0].boxes.tolist() == [[2, 2, 12, 12]]
    assert measured([], split, tmp_path).mask["AP"] == 0


GOOD = {"image_id": 0, "category_id": 7, "score": 0.5, "segmentation": [[2, 2, 12, 2, 12, 12]]}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ({"annotations": []}, "a list of detections"),
        ([{**GOOD, "image_id": 99}], r"\[0\]: image_id 99 is not in .*another dataset"),
        ([GOOD, {"score": 1}], r"\[1\]: has no image_id"),
        ([GOOD, 5], r"\[1\]: has no image_id"),
        ([{**GOOD, "image_id": [1]}], r"\[0\]: image_id"),
        ([{**GOOD, "category_id": 1}], r"category_id 1 is not in .*7 disc, 8 square"),
        ([{**GOOD, "score": None}], r"\[0\]: score: must be a number"),
        ([{**GOOD, "score": "0.5"}], r"\[0\]: score: must be a number"),
        ([{**GOOD, "bbox": [1, 2, 3]}], r"bbox: must be 4 numbers"),
        ([{**GOOD, "segmentation": {"size": [3, 3], "counts": "11"}}], r"segmentation: RLE size"),
        ([{k: v for k, v in GOOD.items() if k != "segmentation"}], "boxes alone"),
    ],
)
def test_what_is_wrong_is_named(rows: Any, said: str, split: Split, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        list(read_predictions(written(rows, tmp_path), split))


def test_the_file_is_written_and_the_data_asked_for(
    split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = split.json_path.parents[1]
    file = written([], tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"no run yet.*--data"):
        evaluate_predictions(file)
    metrics = evaluate_predictions(file, data=data, output=tmp_path / "new")
    result = json.loads((tmp_path / "new" / "evaluate_result.json").read_text())
    assert result["predictions"] == str(file)
    assert result["pictures"] == metrics.pictures == 4
