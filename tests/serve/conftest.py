"""A pipeline that finds what it is told to, so that the service alone is tested."""

from __future__ import annotations

import base64
import io
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import uvicorn
from PIL import Image

from toolkit.data.detections import Detections
from toolkit.data.masks import Crop
from toolkit.pipeline.inputs import Picture
from toolkit.pipeline.result import Result
from toolkit.serve.app import Settings, create_app
from toolkit.serve.limits import Limits

LABELS = ["circle", "rectangle"]


class Fixed:
    """Two instances in every picture, a disc and a rectangle; a picture takes `seconds`, `at_once` of them together."""

    threshold = 0.5
    batch_size = 1
    model = SimpleNamespace(model_name="PP-YOLOE_seg-S", labels=LABELS, folder=Path("no export"))
    backend = SimpleNamespace(name="all cores", shared=True)

    def __init__(self, seconds: float = 0.0, *, at_once: int = 1) -> None:
        self.seconds = seconds
        self.sessions = SimpleNamespace(name="a core each", count=at_once)
        self.batches: list[int] = []
        self.networks: list[str] = []
        self.error: Exception | None = None
        self.go = threading.Event()
        self.go.set()

    def find(self, pictures: Sequence[Picture], *, threshold: Any = None, network: Any = None) -> list[Result]:
        self.batches.append(len(pictures))
        self.networks.append(network.name)
        self.go.wait(10)
        if self.error:
            raise self.error
        time.sleep(self.seconds * len(pictures))
        asked = self.threshold if threshold is None else threshold
        least = asked if isinstance(asked, dict) else dict.fromkeys(LABELS, asked)
        rows = np.array([0.9, 0.6]) >= [least.get(label, self.threshold) for label in LABELS]
        return [Result(picture, found_in(picture.rgb).kept(rows), LABELS) for picture in pictures]


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


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Where a service listens that is run by a thread of this process."""
    with listening(Fixed(), Settings(limits=Limits(body_bytes=2**20, pixels=2_000_000))) as port:
        yield port


@contextmanager
def listening(pipeline: Fixed, settings: Settings) -> Iterator[int]:
    app = create_app(pipeline, settings)  # type: ignore[arg-type]
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="on"))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()
