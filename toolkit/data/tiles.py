"""The tiles of a split's pictures, to train and to evaluate on."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

import cv2
import numpy as np
from numpy.typing import NDArray

from toolkit.data.coco import Annotation, Picture
from toolkit.data.images import read_rgb
from toolkit.data.joining import inside
from toolkit.data.masks import Window, rle_to_crop, segmentation_to_rle
from toolkit.data.tiling import Rgb, cut, windows_of
from toolkit.recipe import Tiling

KEPT = 2**29
"""Bytes of decoded pictures that a process keeps for the next tiles of them."""


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
