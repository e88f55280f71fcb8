from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from toolkit.data.detections import detect
from toolkit.data.preprocess import Prepared


class Fake:
    """Finds one instance in each picture, the whole of it, with the picture's first pixel for a score."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def __call__(
        self, image: NDArray[np.float32], im_shape: NDArray[np.float32], threshold: NDArray[np.float32]
    ) -> Sequence[NDArray[Any]]:
        assert im_shape.dtype == threshold.dtype == np.float32
        assert threshold.shape == (1,)
        self.shapes.append(image.shape)
        height, width = im_shape.T
        boxes = np.stack([0 * width, 0 * height, width, height], axis=1)[:, None]
        logits = np.ones((len(image), 1, 4, 4), np.float32)
        return boxes, image[:, :1, 0, 0], np.zeros((len(image), 1), np.int64), logits


def prepared(score: float, *, padded: tuple[int, int], inside: tuple[int, int]) -> Prepared:
    return Prepared(
        image=np.full((3, *padded), score, np.float32),
        im_shape=inside,
        scale_factor=(0.5, 0.5),
        size=(2 * inside[0], 2 * inside[1]),
    )


PICTURES = [
    prepared(0.1, padded=(32, 64), inside=(30, 50)),
    prepared(0.2, padded=(64, 32), inside=(60, 20)),
    prepared(0.3, padded=(32, 64), inside=(20, 64)),
    prepared(0.4, padded=(32, 64), inside=(32, 64)),
]


@pytest.mark.parametrize(
    ("at_once", "shapes"),
    [
        (None, [(3, 3, 32, 64), (1, 3, 64, 32)]),
        (2, [(2, 3, 32, 64), (1, 3, 32, 64), (1, 3, 64, 32)]),
        (1, [(1, 3, 32, 64)] * 3 + [(1, 3, 64, 32)]),
    ],
)
def test_pictures_of_one_size_go_together_and_come_back_in_order(
    at_once: int | None, shapes: list[tuple[int, ...]]
) -> None:
    network = Fake()
    found = detect(network, PICTURES, mask_frame="box", mask_clip=False, at_once=at_once)
    assert network.shapes == shapes
    assert [float(one.scores[0]) for one in found] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    for one, picture in zip(found, PICTURES, strict=True):
        height, width = picture.size
        assert one.size == picture.size
        assert one.boxes.tolist() == [[0, 0, width, height]], "the picture without its padding"


def test_no_picture_no_detections() -> None:
    assert detect(Fake(), [], mask_frame="box", mask_clip=False) == []
