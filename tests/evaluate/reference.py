"""Random pictures, what was found in them, and what pycocotools makes of both."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from toolkit.data.coco import Annotation, Picture, Split
from toolkit.data.detections import Detections, coco_results
from toolkit.data.masks import Crop, crop_area, crop_to_rle, segmentation_to_rle

Found = dict[int, Detections]


def random_case(seed: int) -> tuple[Split, Found, int]:
    """A split, detections and how many of them count a picture and class.

    Shapes lie on a coarse grid and scores have one decimal, so that overlaps and scores are often equal; there are
    crowd regions, empty pictures, empty masks, and at times more detections than count.
    """
    rng = np.random.default_rng(seed)
    classes = int(rng.integers(1, 5))
    side = int(rng.choice([24, 60, 150]))
    grid = int(rng.choice([1, 3, side // 8]))
    pictures, found = [], {}
    for number in rng.permutation(int(rng.integers(1, 7))).tolist():
        height, width = side, side - grid
        annotations = []
        for k in range(int(rng.choice([0, 1, 3, 12]))):
            crop = _shape(rng, height, width, grid)
            area = crop_area(crop)
            if not area:
                continue
            x1, y1, x2, y2 = map(float, crop.extent)
            crowd = bool(rng.random() < 0.15)
            # Areas in the data need not be those of the masks.
            said = float(rng.choice([area, area, 1024.0, 9216.0]))
            label = int(rng.integers(classes))
            rle = crop_to_rle(crop, (height, width))
            annotations.append(Annotation(k, label, (x1, y1, x2, y2), rle, said, crowd))
        pictures.append(Picture(number * 7 + 3, Path("none"), "none", height, width, annotations))
        if rng.random() < 0.9:
            count = int(rng.choice([0, 2, 15, 130], p=[0.1, 0.4, 0.45, 0.05]))
            found[number * 7 + 3] = _detections(rng, count, classes, pictures[-1], grid)
        else:
            found[number * 7 + 3] = _detections(rng, 0, classes, pictures[-1], grid)
    names = tuple(f"class {k}" for k in range(classes))
    split = Split("val", Path("none"), names, tuple(range(1, classes + 1)), pictures)
    return split, found, int(rng.choice([10, 12, 100]))


def by_pycocotools(split: Split, found: Found, limit: int, kind: str) -> dict[str, NDArray[np.float64]]:
    """The arrays `precision`, `recall` and `scores` of COCOeval."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco_of(split)
        rows = [row for key, each in found.items() for row in coco_results(key, each, split.category_ids)]
        dropped = "segmentation" if kind == "box" else "bbox"
        rows = [{key: value for key, value in row.items() if key != dropped} for row in rows]
        result = COCO()
        result.dataset = {**truth.dataset, "annotations": []}
        result.createIndex()
        measure = COCOeval(truth, truth.loadRes(rows) if rows else result, "bbox" if kind == "box" else "segm")
        measure.params.maxDets = [1, 10, limit]
        measure.evaluate()
        measure.accumulate()
    return {name: measure.eval[name] for name in ("precision", "recall", "scores")}


def coco_of(split: Split) -> COCO:
    annotations = []
    for picture in split.pictures:
        for one in picture.annotations:
            x1, y1, x2, y2 = one.bbox
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": picture.id,
                    "category_id": split.category_ids[one.category],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": one.area,
                    "iscrowd": int(one.iscrowd),
                    "segmentation": segmentation_to_rle(one.segmentation, (picture.height, picture.width)),
                }
            )
    truth = COCO()
    truth.dataset = {
        "images": [{"id": p.id, "height": p.height, "width": p.width} for p in split.pictures],
        "annotations": annotations,
        "categories": [{"id": i, "name": n} for i, n in zip(split.category_ids, split.classes, strict=True)],
    }
    truth.createIndex()
    return truth


def _shape(rng: np.random.Generator, height: int, width: int, grid: int) -> Crop:
    x, y = (int(rng.integers(0, side // grid)) * grid for side in (width, height))
    w, h = (int(rng.integers(1, max(2, side // grid // 2))) * grid for side in (width, height))
    w, h = min(w, width - x), min(h, height - y)
    mask = np.ones((h, w), np.uint8)
    if rng.random() < 0.5:
        mask = (rng.random((h, w)) < 0.8).astype(np.uint8)
    return Crop(mask, x, y)


def _detections(rng: np.random.Generator, count: int, classes: int, picture: Picture, grid: int) -> Detections:
    from toolkit.data.masks import rle_to_crop

    masks, boxes, labels = [], [], []
    for _ in range(count):
        label = int(rng.integers(classes))
        if picture.annotations and rng.random() < 0.7:
            near = picture.annotations[int(rng.integers(len(picture.annotations)))]
            crop = rle_to_crop(near.segmentation)  # type: ignore[arg-type]
            label = near.category if rng.random() < 0.8 else label
            if rng.random() < 0.5:
                crop = Crop(crop.mask * (rng.random(crop.mask.shape) < rng.random()).astype(np.uint8), crop.x, crop.y)
            if rng.random() < 0.3:
                crop = Crop(crop.mask[:, grid:], crop.x + grid, crop.y)
        else:
            crop = _shape(rng, picture.height, picture.width, grid)
        masks.append(crop)
        x1, y1, x2, y2 = crop.extent
        boxes.append([x1, y1, x2 + (0.25 if rng.random() < 0.2 else 0), y2])
        labels.append(label)
    scores = (rng.random(count).round(1) if rng.random() < 0.7 else rng.random(count)).astype(np.float32)
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        scores,
        np.array(labels, np.int64),
        masks,
        (picture.height, picture.width),
    )
