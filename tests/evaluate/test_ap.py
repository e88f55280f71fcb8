from __future__ import annotations

import contextlib
import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tests.pictures import write_dataset
from toolkit.data.coco import Split, load_split
from toolkit.data.detections import Detections, coco_results
from toolkit.data.masks import Crop, full, mask_to_rle
from toolkit.evaluate.ap import Evaluator, Metrics, evaluate
from toolkit.evaluate.score import table_of

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


@pytest.fixture
def split(tmp_path: Path) -> Split:
    folder = write_dataset(tmp_path / "data", train=6, side=128)
    path = folder / "annotations" / "instance_train.json"
    tree = json.loads(path.read_text())
    crowd = np.zeros((128, 128), np.uint8)
    crowd[90:120, 10:110] = 1
    height, width = tree["images"][0]["height"], tree["images"][0]["width"]
    tree["annotations"].append(
        {
            "id": 1000,
            "image_id": 0,
            "category_id": 7,
            "iscrowd": 1,
            "segmentation": mask_to_rle(crowd[:height, :width]),
            "bbox": [10, 90, 100, 30],
            "area": 3000,
        }
    )
    tree["images"].append({"id": 77, "file_name": "negative.png", "height": 20, "width": 30})
    Image.new("RGB", (30, 20)).save(folder / "images" / "negative.png")
    path.write_text(json.dumps(tree))
    return load_split(path, [folder / "images"], root=folder, name="train")


def random_detections(split: Split, seed: int, count: int) -> dict[int, Detections]:
    rng = np.random.default_rng(seed)
    found = {}
    for picture in split.pictures:
        boxes, masks = [], []
        for _ in range(count):
            if picture.annotations and rng.random() < 0.6:
                near = np.array(picture.annotations[rng.integers(len(picture.annotations))].bbox)
                corners = near + rng.normal(0, 3, 4)
            else:
                corners = np.sort(rng.uniform(0, 1, (2, 2)), axis=0).reshape(-1) * ([picture.width, picture.height] * 2)
            corners = corners.clip(0, [picture.width, picture.height] * 2)
            x1, y1, x2, y2 = (int(side) for side in corners)
            boxes.append(corners)
            masks.append(Crop((rng.random((max(y2 - y1, 1), max(x2 - x1, 1))) < 0.9).astype(np.uint8), x1, y1))
        scores = np.sort(rng.random(count).astype(np.float32))[::-1]
        labels = rng.integers(0, 2, count)
        found[picture.id] = Detections(
            np.array(boxes, np.float32).reshape(-1, 4), scores, labels, masks, (picture.height, picture.width)
        )
    return found


def by_pycocotools(split: Split, rows: list[dict[str, Any]], kind: str) -> dict[str, float]:
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(split.json_path))
        # pycocotools takes a match with annotation 0 for none; ours counts from 1.
        for annotation in truth.dataset["annotations"]:
            annotation["id"] += 1
        truth.createIndex()
        measure = COCOeval(truth, truth.loadRes(rows), kind)
        measure.evaluate()
        measure.accumulate()
        measure.summarize()
    return dict(zip(NAMES, measure.stats.tolist(), strict=True))


@pytest.mark.parametrize("count", [1, 7, 130])
def test_mask_figures_are_those_of_pycocotools(split: Split, count: int) -> None:
    evaluator = Evaluator(split)
    rows = []
    for picture_id, found in random_detections(split, seed=count, count=count).items():
        evaluator.add(picture_id, found)
        for score, label, mask in zip(found.scores, found.labels, found.masks, strict=True):
            rows.append(
                {
                    "image_id": picture_id,
                    "category_id": split.category_ids[label],
                    "segmentation": mask_to_rle(full(mask, found.size)),
                    "score": float(score),
                }
            )
    ours, theirs = evaluator.summarize().mask, by_pycocotools(split, rows, "segm")
    assert {name: -1 if value is None else value for name, value in ours.items()} == theirs


def test_box_figures_are_those_of_pycocotools(split: Split) -> None:
    evaluator = Evaluator(split)
    rows: list[dict[str, Any]] = []
    for picture_id, found in random_detections(split, seed=5, count=9).items():
        evaluator.add(picture_id, found)
        rows += coco_results(picture_id, found, split.category_ids)
    rows = [{key: row[key] for key in ("image_id", "category_id", "bbox", "score")} for row in rows]
    ours, theirs = evaluator.summarize().box, by_pycocotools(split, rows, "bbox")
    # Boxes of the data are rounded otherwise in the file than around the polygons.
    assert {n: -1 if v is None else v for n, v in ours.items()} == pytest.approx(theirs, abs=2e-3)


def test_perfect_detections_have_ap_1(split: Split) -> None:
    found = {}
    for picture in split.pictures:
        objects = [a for a in picture.annotations if not a.iscrowd]
        crops = [_crop_of(a, (picture.height, picture.width)) for a in objects]
        found[picture.id] = Detections(
            np.array([a.bbox for a in objects], np.float32).reshape(-1, 4),
            np.ones(len(objects), np.float32),
            np.array([a.category for a in objects], np.int64),
            crops,
            (picture.height, picture.width),
        )
    metrics = evaluate(found.items(), split)
    assert metrics.mask_ap == pytest.approx(1)
    assert metrics.box_ap == pytest.approx(1)
    assert metrics.mask_by_class == pytest.approx({"disc": 1, "square": 1})


def test_no_detections_are_ap_0_and_no_objects_are_not_measured(split: Split) -> None:
    metrics = evaluate(((p.id, _nothing(p.height, p.width)) for p in split.pictures), split)
    assert metrics.mask_ap == 0
    assert metrics.box_ap == 0
    assert metrics.detections == 0
    assert metrics.mask["APl"] is None
    negatives = [picture for picture in split.pictures if picture.id == 77]
    alone = evaluate(((p.id, _nothing(p.height, p.width)) for p in negatives), split)
    assert alone.mask["AP"] is None
    assert alone.mask_ap == 0


def test_the_table_says_not_available(split: Split, capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    metrics = evaluate(((p.id, _nothing(p.height, p.width)) for p in split.pictures), split)
    Console(width=80).print(table_of(metrics))
    printed = capsys.readouterr().out
    assert "AP large" in printed
    assert "n/a" in printed
    assert "-1" not in printed
    assert all(name in printed for name in split.classes)


def test_results_have_the_category_ids_of_the_data(split: Split) -> None:
    rows = [
        row
        for picture_id, found in random_detections(split, seed=1, count=3).items()
        for row in coco_results(picture_id, found, split.category_ids)
    ]
    assert {row["category_id"] for row in rows} == {7, 8}


def test_what_processes_collected_apart_sums_up_as_of_one(split: Split) -> None:
    detections = list(random_detections(split, seed=2, count=9).items())
    whole, first, second = Evaluator(split), Evaluator(split), Evaluator(split)
    for number, (picture_id, found) in enumerate(detections):
        whole.add(picture_id, found)
        (first if number % 2 else second).add(picture_id, found)
    first.take_over(second.collected())
    assert first.summarize() == whole.summarize()
    assert isinstance(first.summarize(), Metrics)


def test_little_is_kept_of_a_detection(split: Split) -> None:
    evaluator = Evaluator(split)
    for picture_id, found in random_detections(split, seed=3, count=100).items():
        evaluator.add(picture_id, found)
    tables = evaluator.tables()
    kept = sum(pickle.dumps(column).__sizeof__() for column in vars(tables).values())
    assert kept < 100 * len(tables.label) + 5000


def _nothing(height: int, width: int) -> Detections:
    return Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64), [], (height, width))


def _crop_of(annotation: Any, size: tuple[int, int]) -> Crop:
    from toolkit.data.masks import segmentation_to_mask

    return Crop(segmentation_to_mask(annotation.segmentation, size), 0, 0)
