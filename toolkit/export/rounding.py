"""What rounding alone may change in the trained model's masks.

A pixel is set where a logit is above 0. Engines sum in other orders than the trained model, so that a logit near 0 may
come out on the other side; one that is farther from 0 may not. How far is near depends on the network, which passes
rounding on, enlarged: it is measured by input noise as small as rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.data.detections import Network, detect
from toolkit.data.masks import Crop, full, mask_to_rle, rle_to_crop
from toolkit.data.preprocess import Prepared
from toolkit.pipeline.certificate import NEAR
from toolkit.pipeline.sample import ROWS

Outputs = Sequence[NDArray[Any]]

NOISE = 1e-6
"""Of the input, in terms of its standard deviation. It moves logits by as much as another engine does: of the 16 models
with made-up weights and of trained ones by 0.4 to 2.6 times (ONNX Runtime and OpenVINO on AMD Zen 3)."""
LEAST, TIMES = 1e-3, 20.0
"""The margin is `TIMES` what noise does to the median mask, at least `LEAST`, in terms of the mask's largest logit.
Engines moved logits of trained models by at most 2e-4 of that, of an untrained R-CNN by 3e-4, of an ill-conditioned
Mask-RT-DETR-H with made-up weights by 1e-3."""
FAINT = 1e-3
"""Masks whose logits are all smaller count as having one as large."""
SHIFT = 0.01
"""By how many pixels rounding may move a box that places or cuts masks; engines moved none by more than 4e-4."""


def measure_margin(network: Network, images: Sequence[Prepared]) -> float:
    """How near to 0 a logit's sign may be changed by rounding, as a fraction of the mask's largest logit.

    Runs `network` twice over each of `images`, with and without noise.
    """
    rng = np.random.default_rng(0)
    near_score, near_box = NEAR["f32"]
    changes: list[float] = []
    for image in images:
        given = image.image[None]
        noise = rng.uniform(-1, 1, given.shape).astype(np.float32) * NOISE * given.std()
        (boxes, scores, labels, logits), noisy = (_run(network, image, pixels) for pixels in (given, given + noise))
        for i in np.flatnonzero(scores > 0)[:ROWS]:
            close = np.abs(noisy[1] - scores[i]) <= near_score
            close &= (np.abs(noisy[0] - boxes[i]) <= near_box).all(axis=1) & (noisy[2] == labels[i])
            if close.any():
                change = np.abs(noisy[3][close] - logits[i]).max(axis=(1, 2)).min()
                changes.append(float(change) / max(float(np.abs(logits[i]).max()), FAINT))
    return max(LEAST, TIMES * float(np.median(changes))) if changes else LEAST


def uncertain_pixels(
    outputs: Outputs, image: Prepared, *, mask_frame: str, mask_clip: bool, margin: float, limit: int
) -> list[Crop]:
    """The pixels of each mask that rounding may set or not.

    They are those that change where all logits move by `margin` times the mask's largest, and the box by `SHIFT`.

    Args:
        outputs: of a `Network` for `image` alone.
        limit: how many rows are kept at most, as of `detect`, whose other arguments these are.
    """
    boxes, scores, labels, logits = outputs
    slack = margin * np.abs(logits).max(axis=(2, 3), keepdims=True).clip(min=FAINT)
    scale_y, scale_x = image.scale_factor
    moves = [(0.0, 0.0)]
    if mask_clip or mask_frame == "box":
        moves += [(x * SHIFT * scale_x, y * SHIFT * scale_y) for x, y in product((-1, 1), repeat=2)]

    def combined(logits: NDArray[Any], combine: Callable[..., Any]) -> list[NDArray[np.uint8]]:
        masks: list[NDArray[np.uint8]] = []
        for x, y in moves:
            moved = (boxes + np.array([x, y, x, y], boxes.dtype), scores, labels, logits)
            [found] = detect(
                lambda *_, moved=moved: moved, [image], mask_frame=mask_frame, mask_clip=mask_clip, limit=limit
            )
            bitmaps = [full(mask, found.size) for mask in found.masks]
            masks = [combine(*pair) for pair in zip(masks, bitmaps, strict=True)] if masks else bitmaps
        return masks

    inner, outer = combined(logits - slack, np.bitwise_and), combined(logits + slack, np.bitwise_or)
    return [rle_to_crop(mask_to_rle(large - small)) for small, large in zip(inner, outer, strict=True)]


def _run(network: Network, image: Prepared, pixels: NDArray[np.float32]) -> list[NDArray[Any]]:
    outputs = network(pixels, np.array([image.im_shape], np.float32), np.zeros(1, np.float32))
    return [output[0] for output in outputs]
