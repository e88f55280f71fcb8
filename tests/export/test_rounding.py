"""Masks of random logits: rounding never makes one wrong, and faults are seen at any size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from toolkit.data.detections import Detections, place
from toolkit.data.masks import Bitmap, Crop, crop_area, full
from toolkit.data.preprocess import Prepared
from toolkit.export.rounding import LEAST, SHIFT, TIMES, measure_margin, uncertain_pixels
from toolkit.pipeline.certificate import Agreement, compare

CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
Floats = NDArray[np.float32]


def shifted(masks: list[Bitmap], x: int, y: int) -> list[Bitmap]:
    height, width = masks[0].shape
    moved = [np.pad(mask, 1)[1 - y : 1 - y + height, 1 - x : 1 - x + width] for mask in masks]
    return [np.ascontiguousarray(mask) for mask in moved]


FAULTS: dict[str, Callable[[list[Bitmap]], list[Bitmap]]] = {
    "right": lambda masks: shifted(masks, 1, 0),
    "left": lambda masks: shifted(masks, -1, 0),
    "down": lambda masks: shifted(masks, 0, 1),
    "up": lambda masks: shifted(masks, 0, -1),
    "eroded": lambda masks: [cv2.erode(mask, CROSS, borderValue=0) for mask in masks],
    "dilated": lambda masks: [cv2.dilate(mask, CROSS) for mask in masks],
    "of the next": lambda masks: [*masks[1:], masks[0]],
    "empty": lambda masks: [np.zeros_like(mask) for mask in masks],
}


@dataclass(frozen=True)
class Drawn:
    """What a network says of one image, and how its masks come from that."""

    boxes: Floats
    logits: Floats
    image: Prepared
    frame: str
    clip: bool

    def found(self, *, boxes: Any = 0.0, logits: Any = 0.0) -> Detections:
        """With so much added."""
        count = len(self.boxes)
        return place(
            self.boxes + np.asarray(boxes, np.float32),
            np.linspace(0.9, 0.5, count, dtype=np.float32),
            np.zeros(count, np.int64),
            self.logits + np.asarray(logits, np.float32),
            size=self.image.size,
            network_size=self.image.size,
            scale=(1.0, 1.0),
            mask_frame=self.frame,
            mask_clip=self.clip,
        )

    def uncertain(self) -> list[Crop]:
        scores = np.linspace(0.9, 0.5, len(self.boxes), dtype=np.float32)
        outputs = self.boxes[None], scores[None], np.zeros(scores.shape, np.int64)[None], self.logits[None]
        return uncertain_pixels(
            outputs, self.image, mask_frame=self.frame, mask_clip=self.clip, margin=LEAST, limit=len(scores)
        )


def draw(rng: np.random.Generator, fields: Floats, size: tuple[int, int]) -> Drawn:
    """Logits of made-up `fields` `[n, cells, cells]`: as they are or as probabilities, over the image or a box."""
    logits = np.tanh(fields) / 2 if rng.random() < 0.5 else fields
    frame = str(rng.choice(["image", "box"]))
    if frame == "box":
        logits[:, [0, -1]] = logits[:, :, [0, -1]] = -np.abs(logits).max(axis=(1, 2), keepdims=True)
    corners = np.concatenate([rng.uniform(0, 0.1, (len(fields), 2)), rng.uniform(0.9, 1, (len(fields), 2))], axis=1)
    boxes = corners * (size[1], size[0], size[1], size[0])
    image = Prepared(image=np.zeros((3, *size), np.float32), im_shape=size, scale_factor=(1.0, 1.0), size=size)
    return Drawn(
        boxes.astype(np.float32), logits.astype(np.float32), image, frame, frame == "image" and rng.random() < 0.5
    )


def smooth(rng: np.random.Generator, count: int = 20) -> Drawn:
    """Random hills of which a part of 1e-4 to a half is above 0, over images of 24 to 640 pixels."""
    side = int(rng.choice([24, 64, 160, 320, 640]))
    cells, coarse = int(rng.choice([14, 28, 40, 80])), int(rng.integers(3, 9))
    knots = rng.normal(size=(count, coarse, coarse)).astype(np.float32)
    fields = np.stack([cv2.resize(field, (cells, cells), interpolation=cv2.INTER_CUBIC) for field in knots])
    for field, part in zip(fields, 10 ** rng.uniform(-4, -0.3, count), strict=True):
        field -= np.quantile(field, 1 - part) - 1e-3
    return draw(rng, fields * np.float32(10 ** rng.uniform(-1, 1)), (side, int(side * rng.uniform(0.6, 1))))


def discs(rng: np.random.Generator, count: int = 3) -> Drawn:
    """Discs with a radius of 1 to 20 cells, of which an image pixel has 0.1 to 4; from one cell to the next logits
    fall by 1, to -8."""
    cells = 60
    centre, radius = rng.uniform(22, cells - 22, (count, 2, 1, 1)), 10 ** rng.uniform(0, 1.3, (count, 1, 1))
    y, x = np.mgrid[0:cells, 0:cells]
    fields = (radius - np.hypot(y - centre[:, 0], x - centre[:, 1])).clip(-8, 8)
    side = round(cells / 10 ** rng.uniform(-1, 0.6))
    return draw(rng, fields.astype(np.float32), (side, side))


def agreement(drawn: Drawn, found: Detections, rows: NDArray[np.bool_]) -> Agreement:
    """Of what was `found` with the `rows` of `drawn`."""
    uncertain = [crop for crop, row in zip(drawn.uncertain(), rows.tolist(), strict=True) if row]
    return compare([drawn.found().kept(rows)], [found.kept(rows)], uncertain=[uncertain])


POPULATIONS = pytest.mark.parametrize("population", [smooth, discs])
seeds = st.integers(0, 2**32 - 1)


@POPULATIONS
@settings(max_examples=60)
@given(seed=seeds)
def test_rounding_makes_no_mask_wrong(population: Callable[..., Drawn], seed: int) -> None:
    """Of a size that is half of what is expected at most, which is some times what engines show."""
    rng = np.random.default_rng(seed)
    drawn = population(rng)
    largest = np.abs(drawn.logits).max(axis=(1, 2), keepdims=True)
    found = drawn.found(
        boxes=rng.uniform(-SHIFT / 5, SHIFT / 5, drawn.boxes.shape),
        logits=rng.choice([-1, 1], drawn.logits.shape) * LEAST / 2 * largest,
    )
    agreed = agreement(drawn, found, np.ones(len(found), bool))
    assert agreed.masks_wrong == 0
    assert agreed.holds


@POPULATIONS
@pytest.mark.parametrize("fault", FAULTS)
@settings(max_examples=25)
@given(seed=seeds)
def test_a_fault_of_all_masks_is_seen(population: Callable[..., Drawn], fault: str, seed: int) -> None:
    drawn = population(np.random.default_rng(seed))
    right = [full(mask, drawn.image.size) for mask in drawn.found().masks]
    wrong = FAULTS[fault](right)
    rows = np.array([bool(a.any()) and not np.array_equal(a, b) for a, b in zip(right, wrong, strict=True)])
    found = replace(drawn.found(), masks=[Crop(mask, 0, 0) for mask in wrong])
    if rows.any():
        assert not agreement(drawn, found, rows).holds


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("size", [1, 2, 3, 5, 60, 600])
def test_one_mask_of_any_size_is_enough(fault: str, size: int) -> None:
    """A square of `size` pixels, whose logits are 1 and -1, beside another one."""
    logits = np.full((2, 640, 640), -1, np.float32)
    logits[0, 20 : 20 + size, 20 : 20 + size] = logits[1, 21:27, 13:17] = 1
    image = Prepared(np.zeros((3, 640, 640), np.float32), (640, 640), (1.0, 1.0), (640, 640))
    drawn = Drawn(np.array([[0, 0, 640, 640]] * 2, np.float32), logits, image, "image", False)
    assert [crop_area(mask) for mask in drawn.found().masks] == [size * size, 24]
    first = np.array([True, False])
    wrong = FAULTS[fault]([full(mask, image.size) for mask in drawn.found().masks])
    found = replace(drawn.found(), masks=[Crop(mask, 0, 0) for mask in wrong])
    assert agreement(drawn, drawn.found(), first).holds
    assert agreement(drawn, found, first).masks_wrong == 1
    assert not agreement(drawn, found, first).holds


def test_a_mask_that_ends_at_its_box_may_end_a_column_earlier_where_the_box_ends_at_a_whole_pixel() -> None:
    logits = np.ones((1, 8, 8), np.float32)
    image = Prepared(np.zeros((3, 32, 32), np.float32), (32, 32), (1.0, 1.0), (32, 32))
    drawn = Drawn(np.array([[4.0, 4.5, 20.5, 24.5]], np.float32), logits, image, "image", True)
    row = np.ones(1, bool)
    assert agreement(drawn, drawn.found(boxes=[SHIFT / 2, 0, 0, 0]), row).masks_wrong == 0
    assert agreement(drawn, drawn.found(boxes=[0, 0, 0.45, 0]), row).masks_wrong == 0
    assert agreement(drawn, drawn.found(boxes=[0.45, 0, 0, 0]), row).masks_wrong == 0
    assert agreement(drawn, drawn.found(boxes=[-0.45, 0, 0, 0]), row).masks_wrong == 0
    moved = replace(drawn.found(), masks=drawn.found(boxes=[0, 0, 0.55, 0]).masks)
    assert agreement(drawn, moved, row).masks_wrong == 1


def test_the_margin_grows_with_what_noise_does() -> None:
    image = Prepared(np.random.default_rng(0).normal(size=(3, 16, 16)).astype(np.float32), (16, 16), (1.0, 1.0), (9, 9))

    def network(amplified: float) -> Callable[..., Any]:
        def run(pixels: Floats, *_: Any) -> list[NDArray[Any]]:
            boxes = np.array([[[0, 0, 9, 9]] * 2], np.float32)
            logits = 1 + amplified * (pixels[:, :1] - image.image[0])
            scores = np.array([[0.9, 0.0]], np.float32)
            return [boxes, scores, np.zeros((1, 2), np.int64), np.concatenate([logits, 100 * logits], axis=1)]

        return run

    assert measure_margin(network(1.0), [image]) == LEAST
    assert measure_margin(network(1e4), [image]) == pytest.approx(TIMES * 1e-2, rel=0.2)
    assert measure_margin(network(1e4), []) == LEAST
