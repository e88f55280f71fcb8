"""A pipeline that finds what it is told to, so that the service alone is tested."""

from __future__ import annotations

import base64
import io
import threading
import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from toolkit.data.detections import Detections
from toolkit.data.masks import Crop
from toolkit.pipeline.inputs import Picture
from toolkit.pipeline.result import Result

LABELS = ["circle", "rectangle"]


class Fixed:
    """Two instances in every picture, a disc and a rectangle; a picture takes `seconds`."""

    threshold = 0.5
    batch_size = 1
    model = SimpleNamespace(model_name="PP-YOLOE_seg-S", labels=LABELS)

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.batches: list[int] = []
        self.error: Exception | None = None
        self.go = threading.Event()
        self.go.set()

    def find(self, pictures: Sequence[Picture], *, threshold: Any = None) -> list[Result]:
        self.batches.append(len(pictures))
        self.go.wait(10)
        if self.error:
            raise self.error
        time.sleep(self.seconds * len(pictures))
        least = self.threshold if threshold is None else threshold
        return [Result(picture, found_in(picture.rgb).above(least), LABELS) for picture in pictures]


def found_in(rgb: np.ndarray) -> Detections:
    height, width = rgb.shape[:2]
    y, x = np.mgrid[:20, :20]
    disc = ((x - 9.5) ** 2 + (y - 9.5) ** 2 < 90).astype(np.uint8)
    boxes = np.array([[4.4, 6.2, 24.3, 26.1], [10, 12, 30.5, 22.5]], np.float32)
    masks = [Crop(disc, 4, 6), Crop(np.ones((10, 20), np.uint8), 10, 12)]
    return Detections(boxes, np.array([0.9, 0.6], np.float32), np.array([0, 1]), masks, (height, width))


def encoded(size: tuple[int, int] = (40, 48), kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size[::-1], (200, 30, 90)).save(stream, kind)
    return stream.getvalue()


def text_of(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


@pytest.fixture
def pipeline() -> Fixed:
    return Fixed()
