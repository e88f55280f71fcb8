"""Rules on masks that training depends on: their format, and whether they hold a pixel.

Formats are those of `toolkit.data.masks`; here they are looked at for all annotations at once, and what looks wrong is
given to the functions there.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from toolkit.data.findings.file import File, Flags, Floats, Ints, Outlines
from toolkit.data.findings.record import Findings
from toolkit.data.images import upright_points
from toolkit.data.masks import MOST_OUTLINE, REACH, MaskError, Polygon, measure_rle, parse_polygons, rle_area
from toolkit.data.masks import segmentation_to_rle as to_rle

BLOCK = 1_000_000
"""Points that are worked on at once."""
SMALL_AREA = 16.0
"""Square pixels under which an outline is drawn to see whether it holds the centre of any pixel."""


class Parts:
    """Measures of each polygon of a file."""

    def __init__(self, outlines: Outlines) -> None:
        count = len(outlines.owner)
        self.low, self.high = np.zeros((count, 2)), np.zeros((count, 2))
        self.area, self.length = np.zeros(count), np.zeros(count)
        for first, last in blocks(outlines.start):
            part = slice(first, last)
            points = outlines.points[outlines.start[first] : outlines.start[last]]
            begin = outlines.start[first:last] - outlines.start[first]
            with np.errstate(invalid="ignore", over="ignore"):
                following = successors(points, begin)
                self.low[part] = np.minimum.reduceat(points, begin)
                self.high[part] = np.maximum.reduceat(points, begin)
                cross = points[:, 0] * following[:, 1] - points[:, 1] * following[:, 0]
                self.area[part] = np.abs(np.add.reduceat(cross, begin)) / 2
                self.length[part] = np.add.reduceat(np.abs(following - points).max(1), begin)


def blocks(start: Ints) -> list[tuple[int, int]]:
    """Ranges of polygons of about `BLOCK` points each."""
    cuts = [0]
    while cuts[-1] < len(start) - 1:
        reach = int(np.searchsorted(start, start[cuts[-1]] + BLOCK))
        cuts.append(min(max(reach, cuts[-1] + 1), len(start) - 1))
    return list(pairwise(cuts))


def successors(points: Floats, begin: Ints) -> Floats:
    """The point after each one on its polygon, `begin` being the first of each."""
    following = np.roll(points, -1, axis=0)
    following[np.append(begin[1:], len(points)) - 1] = points[begin]
    return following


def check_masks(file: File, findings: Findings) -> Parts:
    """Rules on the format of segmentations; finds box and area of each mask, and which are empty."""
    outlines = file.outlines
    assert outlines is not None
    parts = Parts(outlines)
    frames = np.zeros((len(file.image), 2))
    frames[file.image >= 0] = file.frame[file.image[file.image >= 0]]
    usable = (frames > 0).all(1) & ~file.refused
    _check_polygons(file, outlines, parts, frames, usable, findings)
    usable &= ~file.refused
    _measure_polygons(file, outlines, parts, frames, usable)
    for row, rle in outlines.rles.items():
        if not usable[row]:
            continue
        try:
            area, box = measure_rle(rle, (int(frames[row, 0]), int(frames[row, 1])))
        except MaskError as error:
            file.refused[row] = True
            findings.add(error.code, file, "annotations", [row], key="segmentation", error=str(error))
        else:
            file.area[row], file.box[row], file.empty[row] = area, box, not area
    file.measured = usable & ~file.refused
    file.empty |= ~file.measured
    return parts


def check_objects(file: File, findings: Findings) -> None:
    """There must be something to learn."""
    if not (~file.empty & ~file.crowd & (file.category >= 0)).any():
        some = len(file.empty) > 0
        findings.add(
            *("annotations-empty", file),
            what="no annotation has a mask (are these boxes only?)" if some else "empty",
            what_zh="没有任何标注含有掩码（只有框吗？）" if some else "为空",
        )


def _check_polygons(
    file: File, outlines: Outlines, parts: Parts, frames: Floats, usable: Flags, findings: Findings
) -> None:
    sizes = frames[outlines.owner][:, ::-1]
    inside = (parts.low >= -REACH * sizes).all(1) & (parts.high <= (1 + REACH) * sizes).all(1)
    length = np.bincount(outlines.owner, np.nan_to_num(parts.length, posinf=np.inf), minlength=len(usable))
    suspects = np.union1d(outlines.owner[~inside], np.flatnonzero(length > MOST_OUTLINE))
    for row in suspects[usable[suspects]].tolist():
        try:
            parse_polygons(polygons_of(outlines, row), (int(frames[row, 0]), int(frames[row, 1])))
        except MaskError as error:  # noqa: PERF203
            file.refused[row] = True
            findings.add(error.code, file, "annotations", [row], key="segmentation", error=str(error))


def _measure_polygons(file: File, outlines: Outlines, parts: Parts, frames: Floats, usable: Flags) -> None:
    if not len(outlines.owner):
        return
    rows, first = np.unique(outlines.owner, return_index=True)
    low, high = np.minimum.reduceat(parts.low, first), np.maximum.reduceat(parts.high, first)
    size = frames[rows][:, ::-1]
    inside = (low >= 0).all(1) & (high <= size).all(1)
    file.area[rows] = np.add.reduceat(parts.area, first)
    file.box[rows] = np.concatenate([low, high], axis=1)
    file.empty[rows] = False
    doubtful = ~inside | (np.maximum.reduceat(parts.area, first) < SMALL_AREA)
    clipped = np.concatenate([np.clip(low, 0, size), np.clip(high, 0, size)], axis=1)
    file.box[rows[doubtful]] = clipped[doubtful]
    for row in rows[doubtful & usable[rows]].tolist():
        height, width = (int(side) for side in frames[row])
        file.area[row] = rle_area(to_rle(polygons_of(outlines, row), (height, width)))
        file.empty[row] = not file.area[row]


def polygons_of(outlines: Outlines, row: int) -> list[Polygon]:
    """The polygons of annotation `row`."""
    cuts = outlines.start[outlines.first[row] : outlines.first[row + 1] + 1].tolist()
    return [outlines.points[a:b].ravel() for a, b in pairwise(cuts)]


def turn_polygons(polygons: list[Polygon], orientation: int, stored: tuple[int, int]) -> list[Polygon]:
    """Polygons on the stored pixels, as they are on the upright picture."""
    return [upright_points(polygon.reshape(-1, 2), orientation, stored).ravel() for polygon in polygons]
