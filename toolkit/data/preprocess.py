"""From a picture to the network input: the same steps in training, evaluation and service."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from toolkit.errors import UserError
from toolkit.recipe import Data

_NUMBERS = {"nearest": 0, "linear": 1, "cubic": 2, "area": 3}
# The numbers that `interp` has in inference.yml are OpenCV's.
_INTERPOLATIONS = {
    0: cv2.INTER_NEAREST,
    1: cv2.INTER_LINEAR,
    2: cv2.INTER_CUBIC,
    3: cv2.INTER_AREA,
    4: cv2.INTER_LANCZOS4,
}
_STEPS = ("Resize", "NormalizeImage", "Permute", "PadStride", "Pad")


@dataclass(frozen=True)
class Prepared:
    """One picture, ready for the network."""

    image: NDArray[np.float32]
    """`[3, h, w]`."""
    im_shape: tuple[int, int]
    """Height and width after the resize, padding not counted."""
    scale_factor: tuple[float, float]
    """Resized / original, y then x."""
    size: tuple[int, int]
    """Height and width of the picture."""


class Preprocess:
    """The steps under `Preprocess` in `inference.yml` (the format of PaddleDetection and PaddleX).

    Args:
        steps: mappings with `type` (Resize, NormalizeImage, Permute, PadStride or Pad) and its arguments.
        origin: the file they come from, for errors.

    Raises UserError for a step of another type or without what it needs.
    """

    def __init__(self, steps: Sequence[Mapping[str, Any]], *, origin: str) -> None:
        for i, step in enumerate(steps):
            kind = step.get("type") if isinstance(step, Mapping) else None
            if kind not in _STEPS:
                raise UserError(f"{origin}: Preprocess[{i}]: unknown type {kind}; known are {', '.join(_STEPS)}")
            if kind == "Resize" and (_side(step) is None or step.get("interp", 2) not in _INTERPOLATIONS):
                raise UserError(
                    f"{origin}: Preprocess[{i}]: Resize needs target_size [height, width] and interp 0 to 4"
                )
        self._steps = steps

    def __call__(self, rgb: NDArray[np.uint8]) -> Prepared:
        """`rgb`: uint8 `[H, W, 3]`."""
        image: NDArray[Any] = rgb
        resized = rgb.shape[:2]
        for step in self._steps:
            if step["type"] == "Resize":
                image = _resize(image, step)
                resized = image.shape[:2]
            elif step["type"] == "NormalizeImage":
                image = _normalize(image, step)
            elif step["type"] == "Permute":
                image = image.transpose(2, 0, 1)
            else:
                image = _pad(image, step)
        height, width = rgb.shape[:2]
        return Prepared(
            image=np.ascontiguousarray(image, dtype=np.float32),
            im_shape=(resized[0], resized[1]),
            scale_factor=(resized[0] / height, resized[1] / width),
            size=(height, width),
        )


def steps_of(data: Data, *, size: tuple[int, int] | None = None) -> list[dict[str, Any]]:
    """The steps that a recipe's `data` section describes; `size` in place of its `input_size`."""
    steps: list[dict[str, Any]] = [
        {
            "type": "Resize",
            "target_size": list(size or data.input_size),
            "keep_ratio": data.keep_ratio,
            "interp": _NUMBERS[data.interpolation],
        },
        {
            "type": "NormalizeImage",
            "mean": list(data.mean),
            "std": list(data.std),
            "is_scale": True,
            "norm_type": "mean_std",
        },
        {"type": "Permute"},
    ]
    if data.keep_ratio:
        steps.append({"type": "PadStride", "stride": 32})
    return steps


def _side(step: Mapping[str, Any]) -> tuple[int, int] | None:
    size = step.get("target_size")
    if isinstance(size, int) and size > 0:
        return size, size
    if isinstance(size, (list, tuple)) and len(size) == 2 and all(isinstance(s, int) and s > 0 for s in size):
        return size[0], size[1]
    return None


def resized(sides: tuple[int, ...], step: Mapping[str, Any]) -> tuple[int, int]:
    """Height and width that the step `Resize` gives a picture of height and width `sides`."""
    target = _side(step)
    assert target is not None
    height, width = target
    if step.get("keep_ratio", False):
        scale = min(min(target) / min(sides), max(target) / max(sides))
        height, width = (round(side * scale) for side in sides)
    return height, width


def _resize(image: NDArray[Any], step: Mapping[str, Any]) -> NDArray[Any]:
    height, width = resized(image.shape[:2], step)
    return cv2.resize(image, (width, height), interpolation=_INTERPOLATIONS[step.get("interp", 2)])


def _normalize(image: NDArray[Any], step: Mapping[str, Any]) -> NDArray[np.float32]:
    factor = 1 / 255 if step.get("is_scale", True) else 1.0
    result = image.astype(np.float32) * np.float32(factor)
    if step.get("norm_type", "mean_std") not in (None, "none", "mean_std"):
        return result
    mean = np.asarray(step.get("mean", (0.485, 0.456, 0.406)))
    std = np.asarray(step.get("std", (0.229, 0.224, 0.225)))
    if mean.any():
        result -= mean
    if (std != 1).any():
        result /= std
    return result


def _pad(image: NDArray[Any], step: Mapping[str, Any]) -> NDArray[Any]:
    # PadStride stands after Permute, Pad before it.
    if step["type"] == "PadStride":
        stride = int(step.get("stride", 32))
        height, width = (math.ceil(side / stride) * stride for side in image.shape[1:])
        return np.pad(image, ((0, 0), (0, height - image.shape[1]), (0, width - image.shape[2])))
    height, width = list(step.get("size", (640, 640)))[-2:]
    canvas = np.empty((height, width, 3), np.float32)
    canvas[:] = step.get("fill_value", (127.5, 127.5, 127.5))
    canvas[: image.shape[0], : image.shape[1]] = image
    return canvas
