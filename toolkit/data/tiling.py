"""Large pictures tile by tile, in training, evaluation and prediction alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from toolkit.data.detections import Detections
from toolkit.data.joining import join
from toolkit.data.masks import Window
from toolkit.data.preprocess import Prepared, Preprocess
from toolkit.recipe import Tiling

Rgb = NDArray[np.uint8]
Find = Callable[[Sequence[Prepared]], list[Detections]]


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
