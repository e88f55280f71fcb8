"""Large pictures tile by tile, in training, evaluation and prediction alike."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from threading import Lock

import cv2
import numpy as np
from numpy.typing import NDArray

from toolkit.data.coco import Annotation, Picture
from toolkit.data.detections import Detections
from toolkit.data.images import read_rgb
from toolkit.data.joining import inside, join
from toolkit.data.masks import Window, rle_to_crop, segmentation_to_rle
from toolkit.data.preprocess import Prepared, Preprocess
from toolkit.recipe import Tiling

Rgb = NDArray[np.uint8]
Find = Callable[[Sequence[Prepared]], list[Detections]]

KEPT = 2**29
"""Bytes of decoded pictures that a process keeps for the next tiles of them."""


def windows_of(size: tuple[int, int], tiling: Tiling | None) -> list[Window]:
    """The tiles of a picture of `size` (height, width), row by row.

    They are as few as cover it with at least the overlap asked for, all of one size and evenly spread; along a side
    that is not longer than a tile's, there is one as long as the picture. Without `tiling`, one tile is all of it.
    """
    height, width = size
    if tiling is None:
        return [(0, 0, width, height)]
    rows, columns = (_spans(side, tile, tiling.overlap) for side, tile in zip(size, tiling.size, strict=True))
    return [(x1, y1, x2, y2) for y1, y2 in rows for x1, x2 in columns]


def _spans(length: int, tile: int, overlap: float) -> list[tuple[int, int]]:
    if length <= tile:
        return [(0, length)]
    most = max(1, int(tile * (1 - overlap)))  # from one tile's start to the next one's
    gaps = -(-(length - tile) // most)
    return [(start, start + tile) for start in (i * (length - tile) // gaps for i in range(gaps + 1))]


def cut(rgb: Rgb, window: Window | None) -> Rgb:
    """The part of a picture `[H, W, 3]` inside `window`."""
    if window is None:
        return rgb
    x1, y1, x2, y2 = window
    return rgb[y1:y2, x1:x2]


def detect_tiled(
    find: Find, pictures: Sequence[Rgb], preprocess: Preprocess, tiling: Tiling | None, *, at_once: int = 1
) -> list[Detections]:
    """The instances of each of `pictures` `[H, W, 3]`.

    Args:
        find: what a network finds in each of some prepared pictures.
        at_once: tiles, also of several pictures, that are prepared and go through the network together.
    """
    sizes = [(rgb.shape[0], rgb.shape[1]) for rgb in pictures]
    windows = [windows_of(size, tiling) for size in sizes]
    tiles = ((rgb, window) for rgb, theirs in zip(pictures, windows, strict=True) for window in theirs)
    found: list[Detections] = []
    while some := list(islice(tiles, at_once)):
        found += find([preprocess(cut(rgb, window)) for rgb, window in some])
    rest = iter(found)
    agreement = tiling.join if tiling else 1.0
    return [
        join(list(islice(rest, len(theirs))), theirs, size, agreement=agreement)
        for theirs, size in zip(windows, sizes, strict=True)
    ]


# Tiles to train and to evaluate on


def tiles_of(pictures: Sequence[Picture], tiling: Tiling, *, annotated: bool = True) -> list[Picture]:
    """Each picture's tiles, with those of its annotations that are to be seen in them.

    An object is seen in a tile that shows at least `least_part` of it, or of the tile's own area: a lake over twenty
    tiles is in all of them. With `annotated=False`, tiles come without annotations.
    """
    tiles = []
    for picture in pictures:
        windows = windows_of((picture.height, picture.width), tiling)
        seen = _seen(picture, windows, tiling.least_part) if annotated else [[]] * len(windows)
        tiles += [
            dataclasses.replace(picture, annotations=annotations, window=window)
            for window, annotations in zip(windows, seen, strict=True)
        ]
    return tiles


def _seen(picture: Picture, windows: list[Window], least_part: float) -> list[list[Annotation]]:
    if len(windows) == 1:
        return [picture.annotations]
    result: list[list[Annotation]] = [[] for _ in windows]
    frames = np.array(windows)
    for annotation in picture.annotations:
        box = np.array(annotation.bbox)
        shared = np.minimum(frames[:, 2:], box[2:]) - np.maximum(frames[:, :2], box[:2])
        crop = None
        for index in np.flatnonzero((shared > 0).all(1)).tolist():
            x1, y1, x2, y2 = windows[index]
            if not (x1 <= box[0] and y1 <= box[1] and box[2] <= x2 and box[3] <= y2):
                if crop is None:
                    crop = rle_to_crop(segmentation_to_rle(annotation.segmentation, (picture.height, picture.width)))
                whole = min(cv2.countNonZero(crop.mask), (x2 - x1) * (y2 - y1))
                shown = cv2.countNonZero(inside(crop, windows[index]))
                if not shown or shown < least_part * whole:
                    continue
            result[index].append(annotation)
    return result


class Reader:
    """Reads pictures, and keeps the last ones of which tiles were asked for, `KEPT` bytes of them or one."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Path, Rgb] = OrderedDict()
        self._lock = Lock()

    def __call__(self, picture: Picture) -> Rgb:
        """The pixels `[h, w, 3]` of a picture, or of its window.

        Raises UserError for a picture that cannot be read.
        """
        if picture.window in (None, (0, 0, picture.width, picture.height)):
            return read_rgb(picture.path)
        with self._lock:
            if picture.path not in self._kept:
                self._kept[picture.path] = read_rgb(picture.path)
            self._kept.move_to_end(picture.path)
            while len(self._kept) > 1 and sum(rgb.nbytes for rgb in self._kept.values()) > KEPT:
                self._kept.popitem(last=False)
            return np.ascontiguousarray(cut(self._kept[picture.path], picture.window))

    def __reduce__(self) -> tuple[type[Reader], tuple[()]]:
        return Reader, ()  # Other processes read for themselves.


def near_each_other(
    pictures: Sequence[Picture], rows: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """`rows` of `pictures`, tiles in random order, put into an order in which `Reader` seldom reads a picture twice.

    Pictures are drawn by groups that a reader can keep, of four at least; the tiles of a group stay in their order.
    """
    files: dict[Path, int] = {}
    of_row = np.array([files.setdefault(picture.path, len(files)) for picture in pictures])
    size = float(np.mean([3 * picture.height * picture.width for picture in pictures]))
    group = rng.permutation(len(files)) // max(4, int(KEPT / size))
    return rows[np.argsort(group[of_row[rows]], kind="stable")]
