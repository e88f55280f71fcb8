"""Detections from a COCO results file, whichever tool wrote it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from toolkit.data.coco import Picture, Split
from toolkit.data.detections import Detections
from toolkit.data.masks import MaskError, rle_box, rle_to_crop, segmentation_to_rle
from toolkit.errors import UserError
from toolkit.evaluate.ap import Metrics
from toolkit.evaluate.score import NOTHING, Extras, ground_truth, score

Rows = list[tuple[int, Mapping[str, Any]]]
"""Entries of one picture with their places in the file."""


def evaluate_predictions(
    file: Path,
    *,
    data: Path | None = None,
    run: Path | None = None,
    output: Path | None = None,
    extras: Extras = NOTHING,
) -> Metrics:
    """Measure a COCO results file on the validation pictures of `data`, or of the dataset of `run` (the newest).

    Writes `evaluate_result.json` into `output`, by default the working directory.

    Raises UserError for a file that is none, or is not about these pictures.
    """
    split, limit = ground_truth(data, run)
    found = read_predictions(file, split)
    return score(
        found,
        split,
        name=str(file),
        about={"predictions": str(file)},
        folder=output or Path(),
        limit=limit,
        extras=extras,
    )


def read_predictions(file: Path, split: Split) -> Iterator[tuple[int, Detections]]:
    """Yield (picture id, detections) for every picture of `split`, best first, with the file's figures as they are.

    The file is a list of `{"image_id", "category_id", "score", "segmentation"}` with the ids of the split's annotation
    file; `segmentation` is RLE or polygons. Where there is no `bbox` (x, y, width, height), it is that of the mask.

    Raises UserError that names the entry.
    """
    by_picture: dict[int, Rows] = {picture.id: [] for picture in split.pictures}
    for number, row in enumerate(_entries(file)):
        picture = row.get("image_id") if isinstance(row, Mapping) else None
        if not isinstance(picture, int) or picture not in by_picture:
            said = f"image_id {picture} is not in {split.json_path}" if picture is not None else "has no image_id"
            raise UserError(f"{file}: [{number}]: {said}; results of another dataset?")
        by_picture[picture].append((number, row))
    labels = {number: label for label, number in enumerate(split.category_ids)}
    for picture in split.pictures:
        yield picture.id, _detections(by_picture.pop(picture.id), picture, labels, file, split)


def _entries(file: Path) -> list[Any]:
    try:
        tree = orjson.loads(file.read_bytes())
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from None
    except orjson.JSONDecodeError as error:
        raise UserError(f"{file}: line {error.lineno} column {error.colno}: not valid JSON: {error.msg}") from None
    if not isinstance(tree, list):
        raise UserError(f"{file}: COCO results are a list of detections (is: {type(tree).__name__})")
    return tree


def _detections(rows: Rows, picture: Picture, labels: Mapping[int, int], file: Path, split: Split) -> Detections:
    size = (picture.height, picture.width)
    boxes, scores, classes, masks = [], [], [], []
    for number, row in rows:
        place = f"{file}: [{number}]"
        category = row.get("category_id")
        if not isinstance(category, int) or category not in labels:
            known = ", ".join(f"{i} {name}" for i, name in zip(split.category_ids, split.classes, strict=True))
            raise UserError(f"{place}: category_id {category} is not in {split.json_path} ({known:.200})")
        if "segmentation" not in row:
            raise UserError(f"{place}: no segmentation; results of boxes alone cannot be measured here")
        try:
            rle = segmentation_to_rle(row["segmentation"], size)
        except MaskError as error:
            raise UserError(f"{place}: segmentation: {error}") from None
        x1, y1, x2, y2 = rle_box(rle)
        x, y, width, height = _numbers(row.get("bbox", [x1, y1, x2 - x1, y2 - y1]), 4, f"{place}: bbox")
        boxes.append([x, y, x + width, y + height])
        scores += _numbers([row.get("score")], 1, f"{place}: score")
        classes.append(labels[category])
        masks.append(rle_to_crop(rle))
    order = np.argsort([-one for one in scores], kind="stable")
    return Detections(
        boxes=np.array(boxes, np.float64).reshape(-1, 4)[order],
        scores=np.array(scores, np.float64)[order],
        labels=np.array(classes, np.int64)[order],
        masks=[masks[i] for i in order],
        size=size,
    )


def _numbers(value: Any, count: int, place: str) -> list[float]:
    fine = isinstance(value, list) and len(value) == count
    if not fine or not all(type(one) in (int, float) and math.isfinite(one) for one in value):
        raise UserError(f"{place}: must be {'a number' if count == 1 else f'{count} numbers'} (is: {value!r:.60})")
    return list(map(float, value))
