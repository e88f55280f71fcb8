"""Pictures that a run shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from toolkit.data.coco import Picture
from toolkit.data.detections import Detections
from toolkit.data.draw import draw_detections, draw_instances, draw_truth
from toolkit.data.images import read_rgb
from toolkit.data.masks import boxes_of
from toolkit.recipe import Recipe

Rgb = NDArray[np.uint8]

LONGEST = 2000
"""Pixels on the longer side of a picture that is shown."""


def truth_beside_found(picture: Picture, found: Detections, classes: tuple[str, ...]) -> Rgb:
    """The picture with its annotations, to the left of the picture with what was found; large ones made smaller."""
    rgb = read_rgb(picture.path)
    sides = draw_truth(rgb, picture, classes), draw_detections(rgb, found, classes)
    scale = min(1.0, LONGEST / max(rgb.shape[:2]))
    return np.concatenate(
        [cv2.resize(s, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) for s in sides], axis=1
    )


def network_input(batch: dict[str, Any], row: int, recipe: Recipe) -> Rgb:
    """A picture of a training batch as the network gets it, with its objects."""
    pixels = np.nan_to_num(batch["image"][row].transpose(1, 2, 0)) * recipe.data.std + recipe.data.mean
    rgb = np.ascontiguousarray((255 * pixels).round().clip(0, 255).astype(np.uint8))
    return _drawn(rgb, list(batch["gt_mask"][row]), batch["gt_class"][row].tolist(), tuple(recipe.classes))


def save(path: Path, rgb: Rgb) -> None:
    """Write a PNG, in a folder that is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rgb).save(path)


def _drawn(rgb: Rgb, masks: list[Rgb], labels: list[int], classes: tuple[str, ...]) -> Rgb:
    stack = np.stack(masks) if masks else np.zeros((0, *rgb.shape[:2]), np.uint8)
    boxes = [(x1, y1, x2, y2) for x1, y1, x2, y2 in boxes_of(stack).astype(int).tolist()]
    return draw_instances(
        rgb,
        boxes=boxes,
        masks=[mask[y1:y2, x1:x2] for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True)],
        labels=[classes[label] for label in labels],
        classes=labels,
    )
