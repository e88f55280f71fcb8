"""AP of parts of the data: by the size of the objects, by how many there are in a picture, by how bright it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from toolkit.evaluate.bootstrap import Interval, draws, interval, mean, resampled
from toolkit.evaluate.curves import AREAS
from toolkit.evaluate.overlap import Bools, Floats
from toolkit.evaluate.tables import Tables

DRAWS = 200
SIZES = ("small", "medium", "large")
THIRDS = ("low", "middle", "high")


@dataclass(frozen=True)
class Slice:
    name: str
    low: float
    """Of what the slice is by: square root of the area in pixels, objects, mean grey value (0 to 255)."""
    high: float
    pictures: int
    objects: int
    ap: Interval
    """Of the masks."""


def by_size(tables: Tables, *, classes: int, limit: int) -> list[Slice]:
    """Small, medium and large objects after COCO."""
    chosen = np.ones(len(tables.picture_ids), np.bool_)
    return [
        _slice(name, tables, chosen, low**0.5, high**0.5, classes=classes, limit=limit, area=(low, high))
        for name, (low, high) in zip(SIZES, AREAS[1:], strict=True)
    ]


def by_third(tables: Tables, values: Floats, *, classes: int, limit: int) -> list[Slice]:
    """Thirds of the pictures by `values` `[N]`, NaN where there is none; fewer, or none, where they are alike."""
    known = np.isfinite(values)
    if not known.any():
        return []
    part = np.searchsorted(np.quantile(values[known], (1 / 3, 2 / 3)), values, side="right")
    used = np.unique(part[known]).tolist()
    slices = []
    for i in used if len(used) > 1 else ():
        chosen = known & (part == i)
        name = THIRDS[0] if i == used[0] else THIRDS[2] if i == used[-1] else THIRDS[1]
        low, high = float(values[chosen].min()), float(values[chosen].max())
        slices.append(_slice(name, tables, chosen, low, high, classes=classes, limit=limit))
    return slices


def crowding(tables: Tables) -> Floats:
    """`[N]`, objects in each picture; NaN where there are none."""
    count = np.bincount(tables.truth_picture[~tables.truth_crowd], minlength=len(tables.picture_ids)).astype(np.float64)
    return np.where(count > 0, count, np.nan)


def brightness(paths: Sequence[Path]) -> Floats:
    """`[N]`, mean grey value; NaN where a picture cannot be read."""
    values = np.full(len(paths), np.nan)
    for i, path in enumerate(paths):
        # An eighth of the size is enough, and JPEG is read so in a fraction of the time.
        grey = cv2.imread(str(path), cv2.IMREAD_REDUCED_GRAYSCALE_8)
        if grey is not None:
            values[i] = grey.mean()
    return values


def _slice(
    name: str,
    tables: Tables,
    chosen: Bools,
    low: float,
    high: float,
    *,
    classes: int,
    limit: int,
    area: tuple[float, float] = AREAS[0],
) -> Slice:
    places = np.flatnonzero(chosen)
    weights = np.zeros((DRAWS + 1, len(chosen)), np.int64)
    weights[0, places] = 1
    weights[1:, places] = draws(len(places), DRAWS)
    drawn = mean(resampled(tables, "mask", weights, classes=classes, limit=limit, area=area))
    objects = (
        chosen[tables.truth_picture]
        & ~tables.truth_crowd
        & (tables.truth_area >= area[0])
        & (tables.truth_area <= area[1])
    )
    value = None if np.isnan(drawn[0]) else float(drawn[0])
    return Slice(name, low, high, len(places), int(objects.sum()), interval(value, drawn[1:]))
