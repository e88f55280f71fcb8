"""How long it takes to join the instances of a large picture, found in all its tiles.

    python benchmarks/joining.py --side 10000 --objects 5000

Ellipses of some 20 to 200 pixels are found in every tile that sees them, with edges that differ from tile to tile.
"""

from __future__ import annotations

import argparse
import time

import cv2
import numpy as np

from toolkit.data.detections import Detections
from toolkit.data.joining import join
from toolkit.data.masks import Crop
from toolkit.data.tiling import windows_of
from toolkit.recipe import Tiling


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=10_000)
    parser.add_argument("--objects", type=int, default=5_000)
    parser.add_argument("--tile", type=int, default=1024)
    parser.add_argument("--repeat", type=int, default=3)
    asked = parser.parse_args()
    rng = np.random.default_rng(0)
    tiling = Tiling(size=(asked.tile, asked.tile))
    windows = windows_of((asked.side, asked.side), tiling)
    objects = np.column_stack(
        [rng.uniform(0, asked.side, (asked.objects, 2)), rng.uniform(10, 100, (asked.objects, 2))]
    )
    found = [_found(objects, window, rng) for window in windows]
    for _ in range(asked.repeat):
        start = time.perf_counter()
        joined = join(found, windows, (asked.side, asked.side), agreement=tiling.join)
        seconds = time.perf_counter() - start
        print(
            f"{len(windows)} tiles, {sum(map(len, found))} detections of {asked.objects} objects joined to "
            f"{len(joined)} instances in {seconds:.2f} s"
        )


def _found(objects: np.ndarray, window: tuple[int, int, int, int], rng: np.random.Generator) -> Detections:
    x1, y1, x2, y2 = window
    crops = []
    for x, y, a, b in objects:
        axes = tuple(int(max(2, radius + rng.normal(0, 2))) for radius in (a, b))
        left, top = max(x1, int(x) - axes[0]), max(y1, int(y) - axes[1])
        right, bottom = min(x2, int(x) + axes[0] + 1), min(y2, int(y) + axes[1] + 1)
        if right - left > 2 and bottom - top > 2:
            mask = np.zeros((bottom - top, right - left), np.uint8)
            cv2.ellipse(mask, (int(x) - left, int(y) - top), axes, 0, 0, 360, 1, -1)
            crops.append(Crop(mask, left - x1, top - y1))
    return Detections(
        np.array([crop.extent for crop in crops], np.float32).reshape(-1, 4),
        np.sort(rng.uniform(0.3, 1, len(crops)).astype(np.float32))[::-1],
        np.zeros(len(crops), np.int64),
        crops,
        (y2 - y1, x2 - x1),
    )


if __name__ == "__main__":
    main()
