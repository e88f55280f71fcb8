"""Reading what Paddle's graphs return: ours, and those that PaddleX publishes."""

from __future__ import annotations

import numpy as np

from toolkit.data.masks import full
from toolkit.pipeline.backends.paddle import _detections

SIZE = (240, 320)


def rows(*values: tuple[float, ...]) -> np.ndarray:
    return np.array(values, np.float32).reshape(-1, 6)


def mask(height: int, width: int) -> np.ndarray:
    """Set from row 10 on and in the last columns."""
    result = np.zeros((height, width), np.int32)
    result[10:, 300:] = 1
    return result


def test_masks_that_are_a_row_short_get_the_pictures_size() -> None:
    """PaddleDetection takes int(239.99998) rows."""
    bbox = rows((1, 0.9, -4, 8, 330, 250))
    found = _detections([bbox, np.array([1], np.int32), mask(239, 319)[None]], SIZE, 0.5)
    assert found.boxes.tolist() == [[0, 8, 320, 240]]
    whole = full(found.masks[0], SIZE)
    assert whole.shape == SIZE
    assert (whole[:239, :319] == mask(239, 319)).all()
    larger = _detections([bbox, np.array([1], np.int32), mask(250, 330)[None]], SIZE, 0.5)
    assert (full(larger.masks[0], SIZE) == mask(*SIZE)).all()


def test_rows_below_the_threshold_and_rows_of_no_class_are_left_out_and_the_best_comes_first() -> None:
    bbox = rows((0, 0.4, 0, 0, 9, 9), (2, 0.6, 0, 0, 9, 9), (-1, 0.9, 0, 0, 9, 9), (1, 0.8, 0, 0, 9, 9))
    masks = np.zeros((4, *SIZE), np.int32)
    masks[3, 5, 7] = 1
    found = _detections([bbox, np.array([4], np.int32), masks], SIZE, 0.5)
    assert found.labels.tolist() == [1, 2]
    assert found.scores.tolist() == np.float32([0.8, 0.6]).tolist()
    assert [int(crop.mask.sum()) for crop in found.masks] == [1, 0]
    assert (found.masks[0].x, found.masks[0].y) == (7, 5)


def test_nothing_found() -> None:
    found = _detections([rows(), np.array([0], np.int32), np.zeros((0, *SIZE), np.int32)], SIZE, 0.0)
    assert len(found) == 0
    assert found.boxes.shape == (0, 4)


def test_solov2_has_masks_alone_and_its_boxes_lie_around_them() -> None:
    masks = np.zeros((2, *SIZE), np.uint8)
    masks[1, 20:30, 40:70] = 1
    outputs = [np.array([2]), np.array([3, 4]), np.array([0.7, 0.9], np.float32), masks]
    found = _detections(outputs, SIZE, 0.5)
    assert found.labels.tolist() == [4, 3]
    assert found.boxes.tolist() == [[40, 20, 70, 30], [0, 0, 0, 0]]
