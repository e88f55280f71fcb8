from __future__ import annotations

import numpy as np

from toolkit.data.detections import Detections
from toolkit.data.masks import Crop
from toolkit.export.certificate import compare


def alike(rows: int) -> Detections:
    """Rows of one class with boxes and scores close to one another, and no mask, as early in training."""
    step = np.arange(rows, dtype=np.float32)[:, None]
    return Detections(
        boxes=np.array([[10.0, 10.0, 50.0, 50.0]], np.float32) + 0.3 * step,
        scores=0.05 - 1e-4 * step[:, 0],
        labels=np.zeros(rows, np.int64),
        masks=[Crop(np.zeros((0, 0), np.uint8), 0, 0)] * rows,
        size=(64, 64),
    )


def test_rows_that_are_alike_match_each_their_own() -> None:
    agreement = compare([alike(20)], [alike(20)])
    assert (agreement.rows, agreement.matched) == (20, 20)
    assert agreement.score == agreement.box == 0
    assert agreement.holds


def test_a_row_that_moved_does_not_match() -> None:
    moved = alike(1)
    moved.boxes[:] += 1
    assert compare([alike(1)], [moved]).matched == 0
