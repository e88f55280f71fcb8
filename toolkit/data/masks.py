"""Polygons, run-length codes and bitmaps: the only place that converts between them.

Everything is checked here before pycocotools sees it, which hangs, crashes or returns uninitialised memory on a
malformed code. Formats are those of the COCO annotations (https://cocodataset.org/#format-data): a polygon is a flat
list x1 y1 x2 y2 ... in pixels, where pixel k spans k to k + 1; RLE counts run down the columns, zeros first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as codec

from toolkit.errors import RuleError

Bitmap = NDArray[np.uint8]
Polygon = NDArray[np.float64]
Rle = dict[str, Any]
"""`{"size": [height, width], "counts": str}`, compressed as in COCO's files."""
Segmentation = list[Polygon] | Rle
Box = tuple[float, float, float, float]
"""x1, y1, x2, y2 in pixels."""
Window = tuple[int, int, int, int]
"""A part of a picture: x1, y1, x2, y2 in whole pixels, the last ones not included."""

BLOCK = 32768
"""Pixels that `paste` works on at once."""

# What keeps pycocotools from walking outlines of millions of pixels, and from merging thousands of them.
REACH = 1
"""How far outlines may lead out of their picture, in terms of its sides."""
MOST_OUTLINE = 4_000_000
"""Pixels along the outlines of one annotation."""
MOST_PARTS = 10_000
"""Polygons of one annotation."""


class MaskError(RuleError, ValueError):
    """A segmentation breaks its format; the message says the rule, the caller knows the place."""


@dataclass(frozen=True)
class Crop:
    """The part of a picture's mask that can be set."""

    mask: Bitmap
    """`[h, w]`, 0 or 1."""
    x: int
    """Column and row of its first pixel in the picture."""
    y: int

    @property
    def extent(self) -> Window:
        """What it covers of the picture."""
        height, width = self.mask.shape
        return self.x, self.y, self.x + width, self.y + height


# Reading what others wrote


def parse_polygons(value: Any, size: tuple[int, int]) -> list[Polygon]:
    """Check the polygons of one annotation in a picture of `size` (height, width).

    Polygons of fewer than three points enclose nothing and are left out, so the result may be empty.

    Raises MaskError.
    """
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        raise MaskError("segmentation-type", "segmentation must be a list of polygons or an RLE object")
    if len(value) > MOST_PARTS:
        raise MaskError("outline-too-long", f"{len(value)} polygons are more than {MOST_PARTS}")
    height, width = size
    polygons = []
    bound = 0.0
    for part, points in enumerate(value):
        try:
            polygon = np.asarray(points)
        except ValueError:  # lists of unequal length
            polygon = np.empty((0, 0))
        if polygon.ndim != 1 or (polygon.size and polygon.dtype.kind not in "iuf"):
            raise MaskError("polygon-not-numbers", f"polygon {part} must be a flat list of numbers x1, y1, x2, y2, ...")
        if polygon.size % 2:
            raise MaskError("polygon-odd", f"polygon {part} has an odd number of coordinates ({polygon.size})")
        if polygon.size < 6:
            continue
        points = polygon.reshape(-1, 2).astype(np.float64)
        low, high = points.min(0), points.max(0)
        most = (1 + REACH) * width, (1 + REACH) * height
        if not ((low >= (-REACH * width, -REACH * height)).all() and (high <= most).all()):
            raise MaskError(
                "polygon-far-outside",
                f"polygon {part} reaches from ({low[0]:.6g}, {low[1]:.6g}) to ({high[0]:.6g}, {high[1]:.6g}), "
                f"far outside the picture of {width} x {height}",
            )
        bound += len(points) * float((high - low).max())
        polygons.append(points.ravel())
    if bound > MOST_OUTLINE and (length := sum(map(_length, polygons))) > MOST_OUTLINE:
        raise MaskError("outline-too-long", f"outlines of {length:.6g} pixels are longer than {MOST_OUTLINE}")
    return polygons


def _length(polygon: Polygon) -> float:
    """Steps from pixel to pixel along the outline."""
    points = polygon.reshape(-1, 2)
    return float(np.abs(points - np.roll(points, 1, axis=0)).max(1).sum())


def parse_rle(value: Any, size: tuple[int, int]) -> Rle:
    """Check an RLE object, with counts as numbers or compressed, and bring it into the compressed form.

    Raises MaskError.
    """
    return _rle_of_runs(_runs_of(value, size), size)


def measure_rle(value: Any, size: tuple[int, int]) -> tuple[int, Box]:
    """Check an RLE object as `parse_rle` does; `rle_area` and `rle_box` of it, in one pass.

    Raises MaskError.
    """
    runs = _runs_of(value, size)
    return int(runs[1::2].sum()), _box_of_runs(runs, size[0])


def _runs_of(value: Any, size: Sequence[int]) -> NDArray[np.int64]:
    """The lengths of the runs of an RLE object, checked."""
    if not isinstance(value, Mapping) or "counts" not in value:
        raise MaskError("rle-malformed", "an RLE object must have the keys size and counts")
    given = value.get("size")
    if not isinstance(given, Sequence) or list(given) != list(size):
        raise MaskError("rle-size", f"RLE size {given} is not the picture's [height, width] {list(size)}")
    counts = value["counts"]
    if isinstance(counts, bytes):
        counts = counts.decode("latin-1")
    runs = _decode_counts(counts) if isinstance(counts, str) else _integers(counts)
    if (runs < 0).any():
        raise MaskError("rle-malformed", "RLE counts must not be negative")
    if runs.max(initial=0) > math.prod(size) or runs.sum() != math.prod(size):
        raise MaskError("rle-sum", f"RLE counts sum to {runs.sum()}, not to height x width = {math.prod(size)}")
    return runs


def _integers(counts: Any) -> NDArray[np.int64]:
    # Booleans would pass as numbers, fractions would be cut.
    if isinstance(counts, Sequence) and all(type(count) is int and abs(count) < 2**32 for count in counts):
        return np.array(counts, np.int64)
    raise MaskError("rle-malformed", "RLE counts must be a list of integers or a string")


def _decode_counts(text: str) -> NDArray[np.int64]:
    """Counts of a compressed string.

    Each number takes characters from 48 on: five bits, the lowest first, a sixth bit where more follow, and the last
    one's fifth bit is the sign. From the fourth number on, the difference to the number two before is what is stored.
    """
    codes = np.frombuffer(text.encode("utf-8"), np.uint8).astype(np.int64) - 48
    if not codes.size:
        return np.empty(0, np.int64)
    if codes.min() < 0 or codes.max() > 63:
        raise MaskError("rle-malformed", "RLE counts hold a character that compressed counts do not have")
    last = np.flatnonzero((codes & 32) == 0)
    if not last.size or last[-1] != codes.size - 1:
        raise MaskError("rle-malformed", "RLE counts end in the middle of a number")
    first = np.concatenate([[0], last[:-1] + 1])
    length = last - first + 1
    if length.max() > 7:
        raise MaskError("rle-malformed", "RLE counts hold a number beyond 32 bits")
    shift = 5 * (np.arange(codes.size) - np.repeat(first, length))
    values = np.add.reduceat((codes & 31) << shift, first)
    values -= ((codes[last] & 16) != 0) * (np.int64(1) << (5 * length))
    # Undone over the odd and the even positions apart; the first number stands alone.
    for start in (1, 2):
        values[start::2] = np.cumsum(values[start::2])
    return values


# Conversions


def polygons_to_mask(polygons: Sequence[Polygon], size: tuple[int, int]) -> Bitmap:
    """`[H, W]`, 1 inside any of the polygons, as pycocotools draws them.

    Raises MaskError.
    """
    return rle_to_mask(segmentation_to_rle(list(polygons), size))


def rle_to_mask(rle: Rle) -> Bitmap:
    """`[H, W]`, 0 or 1.

    Raises MaskError.
    """
    runs = _runs_of(rle, rle["size"])
    bits = np.zeros(len(runs), np.uint8)
    bits[1::2] = 1
    return np.ascontiguousarray(np.repeat(bits, runs).reshape(rle["size"][::-1]).T)


def segmentation_to_mask(segmentation: Segmentation, size: tuple[int, int]) -> Bitmap:
    """`[H, W]`, 0 or 1, of polygons or RLE.

    Raises MaskError.
    """
    return rle_to_mask(segmentation_to_rle(segmentation, size))


def segmentation_to_rle(segmentation: Segmentation, size: tuple[int, int]) -> Rle:
    """RLE of polygons or RLE in a picture of `size` (height, width).

    Raises MaskError.
    """
    if isinstance(segmentation, Mapping):
        return parse_rle(segmentation, size)
    polygons = parse_polygons(segmentation, size)
    if not polygons:
        return _rle_of_runs(np.array([math.prod(size)]), size)
    merged = codec.merge(codec.frPyObjects(polygons, *size))
    return {"size": list(size), "counts": merged["counts"].decode("ascii")}


def segmentation_to_crop(segmentation: Segmentation, size: tuple[int, int]) -> Crop:
    """The mask of polygons or RLE inside its box, in a picture of `size` (height, width).

    Raises MaskError.
    """
    return rle_to_crop(segmentation_to_rle(segmentation, size))


def mask_to_rle(mask: NDArray[Any]) -> Rle:
    """RLE of a bitmap `[H, W]`; everything but 0 is set."""
    size = [int(side) for side in mask.shape]
    if not mask.size:
        return _rle_of_runs(np.array([0]), size)
    # Column by column, as the encoder reads it.
    coded = codec.encode(cv2.transpose((mask != 0).view(np.uint8)).T)
    return {"size": size, "counts": coded["counts"].decode("ascii")}


def rle_area(rle: Rle) -> int:
    """Number of set pixels.

    Raises MaskError.
    """
    return int(_runs_of(rle, rle["size"])[1::2].sum())


def rle_box(rle: Rle) -> Box:
    """The smallest box around the set pixels; all zero where there are none.

    Raises MaskError.
    """
    return _box_of_runs(_runs_of(rle, rle["size"]), int(rle["size"][0]))


def _box_of_runs(runs: NDArray[np.int64], height: int) -> Box:
    ends = np.cumsum(runs)
    start, last = ends[:-1:2], ends[1::2] - 1
    if not len(start):
        return 0.0, 0.0, 0.0, 0.0
    # A run that goes on in the next column touches the lower and the upper border.
    wraps = (start // height != last // height).any()
    top, bottom = (0, height) if wraps else ((start % height).min(), (last % height).max() + 1)
    return float(start[0] // height), float(top), float(last[-1] // height + 1), float(bottom)


def mask_to_polygons(mask: Bitmap, *, x: int = 0, y: int = 0, tolerance: float = 0.0) -> list[Polygon]:
    """Outlines of a bitmap `[H, W]` along the edges of its pixels; holes are filled.

    Args:
        x, y: where the bitmap's first pixel lies in the picture.
        tolerance: how far in pixels the outline may leave the edges, to need fewer points. At 0 the polygons cover
            exactly the pixels (but for the holes).
    """
    # At twice the size each border pixel says by its parity on which side of the original pixel the edge runs.
    double = np.repeat(np.repeat(mask, 2, axis=0), 2, axis=1)
    contours, _ = cv2.findContours(double, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    polygons = []
    for contour in contours:
        corners = (contour[:, 0] + 1) // 2
        corners = corners[(corners != np.roll(corners, 1, axis=0)).any(1)]
        if tolerance:
            corners = cv2.approxPolyDP(corners[:, None].astype(np.int32), tolerance, True)[:, 0]
        if len(corners) >= 3:
            polygons.append(np.add(corners, (x, y), dtype=np.float64).ravel())
    return polygons


def rle_to_polygons(rle: Rle) -> list[Polygon] | None:
    """Polygons that draw exactly the mask; None where no outline does, as where it has holes.

    Raises MaskError.
    """
    crop = rle_to_crop(rle)
    polygons = mask_to_polygons(crop.mask, x=crop.x, y=crop.y)
    height, width = rle["size"]
    same = segmentation_to_rle(polygons, (height, width)) == parse_rle(rle, (height, width))
    return polygons if same else None


def rle_to_crop(rle: Rle, window: Window | None = None) -> Crop:
    """The mask inside its box, and inside `window`; columns beside them are not decoded.

    Raises MaskError.
    """
    height, width = rle["size"]
    runs = _runs_of(rle, rle["size"])
    boxes = [_box_of_runs(runs, height), window or (0, 0, width, height)]
    x1, y1 = (int(max(box[side] for box in boxes)) for side in (0, 1))
    x2, y2 = (int(min(box[side] for box in boxes)) for side in (2, 3))
    if x1 >= x2 or y1 >= y2:
        return Crop(np.zeros((0, 0), np.uint8), 0, 0)
    part = np.diff(np.cumsum(runs).clip(x1 * height, x2 * height), prepend=x1 * height)
    bits = np.zeros(len(part), np.uint8)
    bits[1::2] = 1
    columns = np.repeat(bits, part).reshape(x2 - x1, height)
    return Crop(np.ascontiguousarray(columns[:, y1:y2].T), x1, y1)


def id_map_to_rles(ids: NDArray[np.integer]) -> dict[int, Rle]:
    """RLE of the pixels of each value but 0 in `ids` `[H, W]`."""
    return {int(value): mask_to_rle(ids == value) for value in np.unique(ids) if value}


def circle_to_polygon(x: float, y: float, radius: float) -> Polygon:
    """A polygon that leaves the circle by at most a tenth of a pixel."""
    corners = 12 if radius < 1 else max(12, math.ceil(math.pi / math.acos(1 - 0.1 / radius)))
    angles = np.linspace(0, 2 * math.pi, corners, endpoint=False)
    return np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], axis=1).ravel()


def full(crop: Crop, size: tuple[int, int]) -> Bitmap:
    """The mask `[H, W]` of the whole picture, of `size` (height, width)."""
    mask = np.zeros(size, np.uint8)
    height, width = crop.mask.shape
    mask[crop.y : crop.y + height, crop.x : crop.x + width] = crop.mask
    return mask


def crop_to_rle(crop: Crop, size: tuple[int, int]) -> Rle:
    """RLE of the whole picture's mask, at the cost of the crop."""
    if not crop.mask.size:
        return _rle_of_runs(np.array([math.prod(size)]), size)
    if 2 * crop.mask.size > math.prod(size):
        # There is little to leave out, and the encoder's loop over pixels is faster.
        return mask_to_rle(full(crop, size))
    # A zero between the columns: a change then lies at every start and every end of a column's runs.
    columns = cv2.copyMakeBorder(cv2.transpose(crop.mask), 0, 0, 1, 0, cv2.BORDER_CONSTANT, value=0)
    flat = np.append(columns.ravel(), np.uint8(0))
    column, row = np.divmod(np.flatnonzero(flat[1:] != flat[:-1]), crop.mask.shape[0] + 1)
    changes = (crop.x + column) * size[0] + crop.y + row
    return _rle_of_runs(np.diff(changes, prepend=0, append=math.prod(size)), size)


def boxes_of(masks: NDArray[np.uint8]) -> NDArray[np.float32]:
    """x1 y1 x2 y2 `[n, 4]` of `masks` `[n, H, W]`, in pixels, so that x2 - x1 is the width; zeros for an empty mask."""
    boxes = np.zeros((len(masks), 4), np.float32)
    for row, mask in zip(boxes, masks, strict=True):
        x, y, w, h = cv2.boundingRect(mask)
        row[:] = x, y, x + w, y + h
    return boxes


def intersection(a: Crop, b: Crop) -> int:
    """How many pixels are set in both of two masks of one picture."""
    left, top, right, bottom = (
        side(*pair) for side, *pair in zip((max, max, min, min), a.extent, b.extent, strict=True)
    )
    if left >= right or top >= bottom:
        return 0
    one = a.mask[top - a.y : bottom - a.y, left - a.x : right - a.x]
    other = b.mask[top - b.y : bottom - b.y, left - b.x : right - b.x]
    return int(cv2.countNonZero(cv2.bitwise_and(one, other)))


def differing(a: Crop, b: Crop, *, ignored: Crop) -> int:
    """How many pixels are set in just one of two masks of one image, not counting those set in `ignored`."""
    x1, y1 = min(a.x, b.x), min(a.y, b.y)
    x2, y2 = (max(a.extent[side], b.extent[side]) for side in (2, 3))
    one, other, without = (_within(crop, (x1, y1, x2, y2)) for crop in (a, b, ignored))
    return int(np.count_nonzero((one ^ other) > without))


def _within(crop: Crop, window: Window) -> Bitmap:
    """The mask over all of `window`; 0 outside the crop."""
    x1, y1, x2, y2 = window
    mask = np.zeros((y2 - y1, x2 - x1), np.uint8)
    left, top, right, bottom = crop.extent
    left, top, right, bottom = max(left, x1), max(top, y1), min(right, x2), min(bottom, y2)
    if left < right and top < bottom:
        mask[top - y1 : bottom - y1, left - x1 : right - x1] = crop.mask[
            top - crop.y : bottom - crop.y, left - crop.x : right - crop.x
        ]
    return mask


def crop_area(crop: Crop) -> int:
    """Number of set pixels."""
    return int(cv2.countNonZero(crop.mask)) if crop.mask.size else 0


def _rle_of_runs(runs: NDArray[np.int64], size: Sequence[int]) -> Rle:
    """Compressed RLE of checked runs; empty runs, which some readers trip over, are merged away."""
    if (runs[1:] == 0).any():
        bits = np.arange(len(runs)) % 2
        runs, bits = runs[runs > 0], bits[runs > 0]
        starts = np.flatnonzero(np.concatenate([[True], bits[1:] != bits[:-1]]))
        runs = np.concatenate([[0] * int(bits[0]), np.add.reduceat(runs, starts)])
    coded = codec.frPyObjects({"size": list(size), "counts": runs.tolist()}, *size)
    return {"size": list(size), "counts": coded["counts"].decode("ascii")}


# From a network's low resolution to the picture


def paste(
    logits: NDArray[np.float32], *, size: tuple[int, int], frame: Box | None = None, clip: Box | None = None
) -> Crop:
    """The mask that `logits` describe, computed only where it can be set.

    Equal to resizing the logits bilinearly to the frame (half-pixel centres, borders repeated, as
    `interpolate(align_corners=False)`) and taking what is above 0.

    Args:
        logits: `[mh, mw]`.
        size: height and width of the picture.
        frame: what the logits cover, in pixels of the picture, which it may leave; by default the whole picture.
            Pixels whose centre lies outside of it are not set.
        clip: box outside of which nothing is set; column k stays where x1 <= k < x2, row k likewise.
    """
    x, y, w, h = cv2.boundingRect((logits > 0).view(np.uint8))
    height, width = size
    x1, y1, x2, y2 = frame or (0.0, 0.0, float(width), float(height))
    left, top, right, bottom = clip or (0.0, 0.0, float(width), float(height))
    columns = _sample(x1, x2, logits.shape[1], first=x, count=w, start=max(left, 0), stop=min(right, width))
    rows = _sample(y1, y2, logits.shape[0], first=y, count=h, start=max(top, 0), stop=min(bottom, height))
    if not (w and len(columns.low) and len(rows.low)):
        return Crop(np.zeros((0, 0), np.uint8), 0, 0)
    # Along the rows first, on the few rows of logits that are needed, turned over: to copy rows is faster than columns.
    used = cv2.transpose(logits[rows.low[0] : rows.low[-1] + 2])
    turned = np.diff(used, axis=0, append=used[-1:]).take(columns.low, axis=0)
    turned *= columns.weight[:, None]
    turned += used.take(columns.low, axis=0)
    across = cv2.transpose(turned)
    step = np.diff(across, axis=0, append=across[-1:])
    np.negative(across, out=across)
    above = rows.low - rows.low[0]
    mask = np.empty((len(above), across.shape[1]), np.bool_)
    # Blocks that stay in the processor's cache: several times faster than whole arrays.
    block = max(1, BLOCK // across.shape[1])
    for start in range(0, len(above), block):
        part = slice(start, start + block)
        rise = step.take(above[part], axis=0)
        rise *= rows.weight[part, None]
        np.greater(rise, across.take(above[part], axis=0), out=mask[part])
    return Crop(mask.view(np.uint8), columns.start, rows.start)


@dataclass(frozen=True)
class _Samples:
    """Along one axis: pixel `start + i` lies `weight[i]` of the way from the cell `low[i]` to the next."""

    start: int
    low: NDArray[np.int64]
    weight: NDArray[np.float32]


def _sample(begin: float, end: float, cells: int, *, first: int, count: int, start: float, stop: float) -> _Samples:
    """Pixels from `start` to `stop` (not included) in the frame from `begin` to `end` and less than a cell away from
    the cells `first` to `first + count`, outside of which no logit is positive."""
    pitch = (end - begin) / cells
    low = max(start, begin - 0.5, begin + (first - 0.5) * pitch - 0.5)
    # The last pixel's centre lies before the end of the frame: a pixel index k with k < high.
    high = min(stop, end - 0.5, begin + (first + count + 0.5) * pitch - 0.5)
    pixels = np.arange(math.ceil(low), max(math.ceil(high), math.ceil(low)))
    position = ((pixels + (0.5 - begin)) / pitch - 0.5).clip(0, cells - 1)
    cell = position.astype(np.int64)
    return _Samples(math.ceil(low), cell, (position - cell).astype(np.float32))
