"""Segmentations as they were meant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from toolkit.data.findings.geometry import turn_polygons
from toolkit.data.images import upright
from toolkit.data.masks import (
    MaskError,
    Polygon,
    mask_to_rle,
    parse_polygons,
    parse_rle,
    rle_area,
    rle_box,
    rle_to_mask,
    segmentation_to_rle,
)


@dataclass
class Frame:
    """What annotations of a picture are for, and what the picture is."""

    stored: tuple[int, int]
    """Height and width that the annotations are for."""
    size: tuple[int, int]
    """Height and width of the upright picture."""
    orientation: int = 1
    """EXIF's number, where the annotations have to be turned."""
    scale: tuple[float, float] = (1.0, 1.0)
    """What the annotations have to be stretched by, x and y."""
    entry: dict[str, Any] = field(default_factory=dict)
    """The image as it is written."""

    @property
    def plain(self) -> bool:
        """Whether annotations stay as they are."""
        return self.stored == self.size and self.orientation == 1


def mend(value: Any, frame: Frame, *, crossing: bool) -> tuple[Any, str]:
    """The segmentation on the upright picture and what was done to it; None and why if it cannot be mended."""
    try:
        if isinstance(value, Mapping):
            mended, what = _mend_rle(value, frame)
        else:
            mended, what = _mend_polygons(value, frame, crossing=crossing)
    except MaskError as error:
        return None, str(error)
    if not mended or not rle_area(segmentation_to_rle(_parsed(mended, frame), frame.size)):
        return None, "has no mask inside the picture"
    return mended, what


def box_and_area(segmentation: Any, size: tuple[int, int]) -> tuple[list[float], float]:
    """`bbox` (x, y, width, height) and `area` of a sound segmentation."""
    if isinstance(segmentation, Mapping):
        rle = parse_rle(segmentation, size)
        x1, y1, x2, y2 = rle_box(rle)
    else:
        polygons = parse_polygons(segmentation, size)
        rle = segmentation_to_rle(polygons, size)
        points = np.concatenate(polygons).reshape(-1, 2).clip(0, size[::-1])
        (x1, y1), (x2, y2) = points.min(0).tolist(), points.max(0).tolist()
    return [round(side, 3) for side in (x1, y1, x2 - x1, y2 - y1)], float(rle_area(rle))


def _parsed(segmentation: Any, frame: Frame) -> Any:
    return segmentation if isinstance(segmentation, dict) else parse_polygons(segmentation, frame.size)


def _mend_rle(value: Mapping[str, Any], frame: Frame) -> tuple[Any, str]:
    rle = parse_rle(value, frame.stored)
    if frame.plain:
        return dict(value), ""
    mask = upright(rle_to_mask(rle), frame.orientation)
    if mask.shape != frame.size:
        mask = cv2.resize(mask, frame.size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    return mask_to_rle(mask), "mask turned or stretched with its picture"


def _mend_polygons(value: Any, frame: Frame, *, crossing: bool) -> tuple[Any, str]:
    done = []
    parts = _numbers_of(value)
    whole = [part for part in parts if len(part) >= 6 and not len(part) % 2 and np.isfinite(part).all()]
    polygons = parse_polygons(whole, frame.stored)
    kept = [polygon for polygon in polygons if _encloses(polygon, frame.stored)]
    if len(kept) < len(parts):
        done.append(f"{len(parts) - len(kept)} polygons that enclose nothing left out")
    if not frame.plain:
        kept = turn_polygons(kept, frame.orientation, frame.stored)
        kept = [(polygon.reshape(-1, 2) * frame.scale).ravel() for polygon in kept]
        done.append("outlines turned or stretched with their picture")
    inside = [clip(polygon, frame.size) for polygon in kept]
    if any(len(a) != len(b) or (a != b).any() for a, b in zip(inside, kept, strict=True)):
        done.append("outlines cut off at the border of the picture")
    inside = [polygon for polygon in inside if len(polygon) >= 6 and _encloses(polygon, frame.size)]
    if crossing and inside:
        return segmentation_to_rle(inside, frame.size), "; ".join([*done, "outline that crosses itself made a mask"])
    return [polygon.round(3).tolist() for polygon in inside], "; ".join(done)


def _numbers_of(value: Any) -> list[list[float]]:
    """Polygons, also from a single one without its list, from pairs of coordinates and from numbers in quotes."""
    if not isinstance(value, list):
        if value is None:
            return []
        raise MaskError("segmentation-type", "segmentation must be a list of polygons or an RLE object")
    if value and not any(isinstance(part, list) for part in value):
        value = [value]
    parts = []
    for part in value:
        flat = part if isinstance(part, list) else [part]
        if flat and all(isinstance(point, list) and len(point) == 2 for point in flat):
            flat = [number for point in flat for number in point]
        try:
            parts.append([float(number) for number in flat if not isinstance(number, bool)])
        except (TypeError, ValueError):
            raise MaskError("polygon-not-numbers", "a polygon holds what is no number") from None
    return parts


def clip(polygon: Polygon, size: tuple[int, int]) -> Polygon:
    """The part of a polygon inside a picture of `size` (height, width), after Sutherland and Hodgman (1974)."""
    points = polygon.reshape(-1, 2)
    for axis, limit, sign in ((0, 0.0, 1), (0, float(size[1]), -1), (1, 0.0, 1), (1, float(size[0]), -1)):
        depth = sign * (points[:, axis] - limit)
        if not len(points) or (depth >= 0).all():
            continue
        before, behind = np.roll(points, 1, axis=0), np.roll(depth, 1)
        pieces = []
        for here, there, d, e in zip(points, before, depth, behind, strict=True):
            if (d >= 0) != (e >= 0):
                pieces.append(there + (here - there) * (e / (e - d)))
            if d >= 0:
                pieces.append(here)
        points = np.array(pieces).reshape(-1, 2)
    return points.clip(0, size[::-1]).ravel()


def _encloses(polygon: Polygon, size: tuple[int, int]) -> bool:
    x, y = polygon[0::2], polygon[1::2]
    area = abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2
    # The two halves of a bow tie cancel each other, but are drawn.
    return area > 1e-9 or rle_area(segmentation_to_rle([polygon], size)) > 0
