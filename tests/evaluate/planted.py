"""Perfect detections of made-up pictures, and ways to spoil a part of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from toolkit.data.coco import Annotation, Picture, Split
from toolkit.data.detections import Detections
from toolkit.data.masks import Crop, crop_area, crop_to_rle
from toolkit.evaluate.ap import Evaluator
from toolkit.evaluate.tables import Tables

CLASSES = ("disc", "square", "bar")
SIDE = 40
GRID = 4
"""Objects along each side of a picture; each has a cell to itself, twice as wide as it is."""


@dataclass
class Row:
    """One detection."""

    label: int
    score: float
    crop: Crop


def make_split(pictures: int = 20) -> Split:
    """Pictures with 16 discs each, whose class is drawn."""
    rng = np.random.default_rng(0)
    side = GRID * 2 * SIDE
    made = []
    for number in range(pictures):
        annotations = []
        for cell in range(GRID * GRID):
            y, x = divmod(cell, GRID)
            mask = cv2.circle(np.zeros((SIDE, SIDE), np.uint8), (SIDE // 2, SIDE // 2), SIDE // 2 - 1, (1,), -1)
            crop = Crop(mask, x * 2 * SIDE + SIDE // 2, y * 2 * SIDE + SIDE // 2)
            box = tuple(map(float, crop.extent))
            rle = crop_to_rle(crop, (side, side))
            annotations.append(
                Annotation(cell, int(rng.integers(len(CLASSES))), box, rle, float(crop_area(crop)), False)  # type: ignore[arg-type]
            )
        made.append(Picture(number, Path("none"), f"{number}.png", side, side, annotations))
    return Split("val", Path("none"), CLASSES, (1, 2, 3), made)


def perfect(picture: Picture, rng: np.random.Generator) -> list[Row]:
    from toolkit.data.masks import rle_to_crop

    scores = rng.uniform(0.6, 1, len(picture.annotations))
    return [
        Row(one.category, float(score), rle_to_crop(one.segmentation))  # type: ignore[arg-type]
        for one, score in zip(picture.annotations, scores, strict=True)
    ]


def spoiled(split: Split, spoil: Callable[[Row, np.random.Generator], list[Row]], *, part: float = 0.2) -> Tables:
    """Tables of perfect detections of which `part` went through `spoil`."""
    rng = np.random.default_rng(1)
    evaluator = Evaluator(split, thorough=True)
    for picture in split.pictures:
        rows: list[Row] = []
        for row in perfect(picture, rng):
            rows += spoil(row, rng) if rng.random() < part else [row]
        evaluator.add(picture.id, detections_of(rows, picture))
    return evaluator.tables()


def detections_of(rows: list[Row], picture: Picture) -> Detections:
    rows = sorted(rows, key=lambda row: -row.score)
    return Detections(
        np.array([row.crop.extent for row in rows], np.float32).reshape(-1, 4),
        np.array([row.score for row in rows], np.float32),
        np.array([row.label for row in rows], np.int64),
        [row.crop for row in rows],
        (picture.height, picture.width),
    )


def shifted(row: Row, rng: np.random.Generator) -> list[Row]:
    return [replace(row, crop=replace(row.crop, x=row.crop.x + SIDE // 2))]


def far(row: Row, rng: np.random.Generator) -> list[Row]:
    """Into the empty space between the cells."""
    return [row, Row(row.label, row.score, Crop(row.crop.mask[: SIDE // 2], row.crop.x + SIDE, row.crop.y + SIDE))]


def swapped(row: Row, rng: np.random.Generator) -> list[Row]:
    return [replace(row, label=(row.label + 1) % len(CLASSES))]


def swapped_and_shifted(row: Row, rng: np.random.Generator) -> list[Row]:
    return swapped(shifted(row, rng)[0], rng)


def eroded(row: Row, rng: np.random.Generator) -> list[Row]:
    """Little of the mask is left, and its box stays."""
    mask = cv2.erode(cv2.copyMakeBorder(row.crop.mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT), np.ones((15, 15), np.uint8))
    return [replace(row, crop=replace(row.crop, mask=mask[1:-1, 1:-1].astype(np.uint8)))]


def doubled(row: Row, rng: np.random.Generator) -> list[Row]:
    return [row, replace(row, score=row.score - 0.05)]


def dropped(row: Row, rng: np.random.Generator) -> list[Row]:
    return []
