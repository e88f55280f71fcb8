"""Augmentation by albumentations, as a recipe lists it.

Only pictures and masks are transformed; boxes are read off the masks afterwards, so the two cannot part.
"""

from __future__ import annotations

import difflib
import inspect
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

# It asks PyPI for newer versions when it is imported, in every process.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations as A
import cv2
import numpy as np
from albumentations.core.type_definitions import Targets
from numpy.typing import NDArray

from toolkit.data.masks import boxes_of
from toolkit.errors import UserError

Image = NDArray[np.uint8]
Masks = NDArray[np.uint8]


class Expand(A.DualTransform):
    """Lay the picture at a random place on a larger canvas (the zoom-out of SSD, Liu et al. 2016).

    Args:
        ratio: least and greatest size of the canvas in terms of the picture.
        fill: colour of the canvas, R, G, B.
        max_side: a canvas with a longer side than this and than the picture's is made smaller, picture and all; the
            network input is smaller still.
    """

    _targets = (Targets.IMAGE, Targets.MASK)

    def __init__(
        self,
        ratio: Sequence[float] = (1.0, 4.0),
        fill: Sequence[float] = (123.675, 116.28, 103.53),
        max_side: int = 1280,
        p: float = 0.5,
    ) -> None:
        super().__init__(p=p)
        if len(ratio) != 2 or not 1 <= ratio[0] <= ratio[1]:
            raise ValueError("ratio must be two numbers, from 1 upwards, the smaller one first")
        self.ratio, self.fill, self.max_side = tuple(ratio), tuple(fill), max_side

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        height, width = params["shape"][:2]
        ratio = self.py_random.uniform(*self.ratio)
        scale = min(1.0, max(self.max_side, height, width) / (ratio * max(height, width)))
        size = max(1, round(height * scale)), max(1, round(width * scale))
        canvas = max(size[0], round(height * ratio * scale)), max(size[1], round(width * ratio * scale))
        corner = self.py_random.randint(0, canvas[0] - size[0]), self.py_random.randint(0, canvas[1] - size[1])
        return {"size": size, "canvas": canvas, "corner": corner}

    def apply(self, img: Image, **params: Any) -> Image:
        canvas: Image = np.empty((*params["canvas"], img.shape[2]), np.uint8)
        canvas[:] = np.round(self.fill).astype(np.uint8)
        _paste(canvas, img, params["size"], params["corner"], cv2.INTER_AREA)
        return canvas

    def apply_to_mask(self, mask: Image, **params: Any) -> Image:
        return self.apply_to_masks(mask[None], **params)[0]

    def apply_to_masks(self, masks: Masks, **params: Any) -> Masks:
        canvas: Masks = np.zeros((len(masks), *params["canvas"]), np.uint8)
        for target, mask in zip(canvas, masks, strict=True):
            _paste(target, mask, params["size"], params["corner"], cv2.INTER_NEAREST_EXACT)
        return canvas


class InstanceCrop(A.DualTransform):
    """Crop a random part that shows at least one instance well (the sampling of SSD, Liu et al. 2016).

    A least overlap between the crop and some instance's box is drawn from `overlaps`, then up to `attempts` crops; the
    first that has it, and holds that instance's centre, is taken. Pictures without instances stay whole.

    Args:
        scaling: least and greatest area of the crop in terms of the picture.
        aspect: least and greatest width / height of the crop in terms of the picture's.
        overlaps: IoU thresholds to draw from.
    """

    _targets = (Targets.IMAGE, Targets.MASK)

    def __init__(
        self,
        scaling: Sequence[float] = (0.3, 1.0),
        aspect: Sequence[float] = (0.5, 2.0),
        overlaps: Sequence[float] = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9),
        attempts: int = 50,
        p: float = 1.0,
    ) -> None:
        super().__init__(p=p)
        if not 0 < scaling[0] <= scaling[1] <= 1:
            raise ValueError("scaling must be two numbers between 0 and 1, the smaller one first")
        if not 0 < aspect[0] <= aspect[1]:
            raise ValueError("aspect must be two positive numbers, the smaller one first")
        self.scaling, self.aspect, self.overlaps = tuple(scaling), tuple(aspect), tuple(overlaps)
        self.attempts = attempts

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        height, width = params["shape"][:2]
        whole = {"window": (0, 0, width, height)}
        boxes = boxes_of(np.asarray(data.get("masks", np.zeros((0, height, width), np.uint8))))
        boxes = boxes[boxes[:, 2] > boxes[:, 0]]
        if not len(boxes):
            return whole
        least = self.py_random.choice(self.overlaps)
        for _ in range(self.attempts):
            area = self.py_random.uniform(*self.scaling)
            aspect = np.exp(self.py_random.uniform(*np.log(self.aspect)))
            w, h = round(width * (area * aspect) ** 0.5), round(height * (area / aspect) ** 0.5)
            if not (1 <= w <= width and 1 <= h <= height):
                continue
            x, y = self.py_random.randint(0, width - w), self.py_random.randint(0, height - h)
            window = np.array([x, y, x + w, y + h], np.float32)
            centre = (boxes[:, :2] + boxes[:, 2:]) / 2
            inside = ((centre > window[:2]) & (centre < window[2:])).all(1)
            if (inside & (_overlap(boxes, window) >= least)).any():
                return {"window": (x, y, x + w, y + h)}
        return whole

    def apply(self, img: Image, **params: Any) -> Image:
        x1, y1, x2, y2 = params["window"]
        return np.ascontiguousarray(img[y1:y2, x1:x2])

    def apply_to_mask(self, mask: Image, **params: Any) -> Image:
        return self.apply(mask, **params)

    def apply_to_masks(self, masks: Masks, **params: Any) -> Masks:
        x1, y1, x2, y2 = params["window"]
        return masks[:, y1:y2, x1:x2]


class Augmentation:
    """The transforms of a recipe in their order.

    Args:
        entries: `{class: {argument: value}}`, a class of albumentations or of this file.

    Raises UserError for a class that is not there or an argument that it does not take.
    """

    def __init__(self, entries: Sequence[Mapping[str, Any]]) -> None:
        self._compose = A.Compose([_build(i, entry) for i, entry in enumerate(entries)]) if entries else None

    def __call__(self, image: Image, masks: Masks, *, seed: int) -> tuple[Image, Masks]:
        """Transform `image` `[H, W, 3]` and `masks` `[n, H, W]` alike; the same seed gives the same result."""
        if self._compose is None:
            return image, masks
        # Compose would seed all transforms alike: those of equal probability would then act together or not at all.
        seeds = np.random.SeedSequence(seed).generate_state(len(self._compose.transforms))
        for transform, own in zip(self._compose.transforms, seeds.tolist(), strict=True):
            transform.set_random_seed(own)
        if not len(masks):
            image = self._compose(image=image)["image"]
            return image, np.zeros((0, *image.shape[:2]), np.uint8)
        result = self._compose(image=image, masks=masks)
        return result["image"], np.ascontiguousarray(result["masks"])


def _build(index: int, entry: Mapping[str, Any]) -> Any:
    place = f"data.train_transforms[{index}]"
    if len(entry) != 1:
        raise UserError(f"{place}: must have one key, the class of the transform, as in - HorizontalFlip: {{p: 0.5}}")
    [(name, arguments)] = entry.items()
    own = {n: c for n, c in vars(sys.modules[__name__]).items() if inspect.isclass(c) and c.__module__ == __name__}
    known = {n: c for n, c in {**vars(A), **own}.items() if inspect.isclass(c) and issubclass(c, A.BasicTransform)}
    if name not in known:
        close = difflib.get_close_matches(str(name), known, n=1)
        hint = f"did you mean {close[0]}?" if close else "give a class of albumentations, or Expand or InstanceCrop"
        raise UserError(f"{place}: unknown transform {name}; {hint}")
    arguments = arguments or {}
    taken = list(inspect.signature(known[name].__init__).parameters)[1:]
    for argument in arguments:
        if argument not in taken:
            raise UserError(f"{place}.{name}: unknown argument {argument}; it takes {', '.join(taken)}")
    try:
        return known[name](**arguments)
    except (ValueError, TypeError) as error:
        raise UserError(f"{place}.{name}: {' '.join(str(error).split())}") from None


def _paste(canvas: Image, part: Image, size: tuple[int, int], corner: tuple[int, int], interpolation: int) -> None:
    if part.shape[:2] != size:
        part = cv2.resize(part, size[::-1], interpolation=interpolation)
    canvas[corner[0] : corner[0] + size[0], corner[1] : corner[1] + size[1]] = part


def _overlap(boxes: NDArray[np.float32], window: NDArray[np.float32]) -> NDArray[np.float32]:
    sides = (np.minimum(boxes[:, 2:], window[2:]) - np.maximum(boxes[:, :2], window[:2])).clip(0)
    shared = sides.prod(1)
    whole = (boxes[:, 2:] - boxes[:, :2]).prod(1) + (window[2:] - window[:2]).prod() - shared
    overlap: NDArray[np.float32] = shared / whole
    return overlap
