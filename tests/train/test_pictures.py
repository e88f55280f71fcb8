from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from toolkit.data.coco import Annotation, Picture
from toolkit.data.detections import Detections
from toolkit.data.masks import Crop, mask_to_rle
from toolkit.train.pictures import LONGEST, truth_beside_found


@pytest.mark.parametrize(("size", "shown"), [((60, 90), (60, 180)), ((1500, 3000), (LONGEST // 2, 2 * LONGEST))])
def test_truth_and_what_was_found_side_by_side_at_a_size_that_can_be_shown(tmp_path: Path, size, shown) -> None:
    height, width = size
    cv2.imwrite(str(tmp_path / "a.png"), np.full((*size, 3), 40, np.uint8))
    mask = np.zeros(size, np.uint8)
    mask[: height // 2, : width // 3] = 1
    truth = Annotation(1, 0, (0, 0, width // 3, height // 2), mask_to_rle(mask), 1, False)
    picture = Picture(1, tmp_path / "a.png", "a.png", height, width, [truth])
    crop = Crop(np.ones((height // 4, width // 4), np.uint8), width // 2, height // 2)
    found = Detections(
        np.array([crop.extent], np.float32), np.array([0.9], np.float32), np.array([0]), [crop], (height, width)
    )
    drawn = truth_beside_found(picture, found, ("disc",))
    assert drawn.shape == (*shown, 3)
    left, right = np.split((drawn != 40).any(-1), 2, axis=1)
    assert left[shown[0] // 4, shown[1] // 12]
    assert not left[5 * shown[0] // 8, 5 * shown[1] // 16]
    assert right[5 * shown[0] // 8, 5 * shown[1] // 16]
