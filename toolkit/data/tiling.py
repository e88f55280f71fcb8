"""Large pictures tile by tile, in training, evaluation and prediction alike."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from toolkit.data.detections import Detections
from toolkit.data.joining import join
from toolkit.data.masks import Window
from toolkit.data.preprocess import Prepared
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
    find: Find,
    pictures: Iterable[Rgb],
    preprocess: Callable[[Rgb], Prepared],
    tiling: Tiling | None,
    *,
    at_once: int = 1,
) -> Iterator[Detections]:
    """Yield the instances of each of `pictures` `[H, W, 3]`, which are asked for when their tiles' turn comes.

    Args:
        find: what a network finds in each of some prepared pictures.
        at_once: tiles, also of several pictures, that are prepared and go through the network together.
    """
    begun: deque[tuple[tuple[int, int], list[Window]]] = deque()
    found: deque[Detections] = deque()

    def tiles() -> Iterator[Prepared]:
        for rgb in pictures:
            size = (rgb.shape[0], rgb.shape[1])
            begun.append((size, windows_of(size, tiling)))
            yield from (preprocess(cut(rgb, window)) for window in begun[-1][1])

    remaining = tiles()
    while some := list(islice(remaining, at_once)):
        found.extend(find(some))
        while begun and len(found) >= len(begun[0][1]):
            size, windows = begun.popleft()
            yield join([found.popleft() for _ in windows], windows, size, agreement=tiling.join if tiling else 1.0)
