"""Instances drawn over a picture: masks, outlines, boxes and labels that can be read on any ground."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from toolkit.data.coco import Picture
from toolkit.data.detections import Detections
from toolkit.data.masks import segmentation_to_crop

_FILL = 0.45
# Pillow's own font has no glyphs beyond Latin; these are where systems keep one that has.
_WIDE_FONTS = (
    "/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc",
    "/usr/share/fonts/truetype/wqy/wqy-microhei.ttc",
    "/usr/share/fonts/truetype/wqy/wqy-zenhei.ttc",
    "/usr/share/fonts/truetype/droid/DroidSansFallbackFull.ttf",
    "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf",
    "/System/Library/Fonts/PingFang.ttc",
    "C:/Windows/Fonts/msyh.ttc",
)

Box = tuple[int, int, int, int]
Colour = tuple[int, int, int]


def draw_detections(rgb: NDArray[np.uint8], found: Detections, classes: Sequence[str]) -> NDArray[np.uint8]:
    """Return a copy of `rgb` `[H, W, 3]` with all that was found drawn on it; `classes` are names in label order."""
    return draw_instances(
        rgb,
        boxes=[mask.extent for mask in found.masks],
        masks=[mask.mask for mask in found.masks],
        labels=[classes[label] for label in found.labels],
        scores=found.scores.tolist(),
        classes=found.labels.tolist(),
    )


def draw_truth(rgb: NDArray[np.uint8], picture: Picture, classes: Sequence[str]) -> NDArray[np.uint8]:
    """Return a copy of `rgb` `[H, W, 3]`, the pixels of `picture`, with its annotations drawn on it."""
    size = (picture.height, picture.width)
    crops = [segmentation_to_crop(annotation.segmentation, size) for annotation in picture.annotations]
    labels = [annotation.category for annotation in picture.annotations]
    return draw_instances(
        rgb,
        boxes=[crop.extent for crop in crops],
        masks=[crop.mask for crop in crops],
        labels=[classes[label] for label in labels],
        classes=labels,
    )


def draw_instances(
    rgb: NDArray[np.uint8],
    *,
    boxes: Sequence[Box],
    masks: Sequence[NDArray[np.uint8]],
    labels: Sequence[str],
    scores: Sequence[float] | None = None,
    classes: Sequence[int],
) -> NDArray[np.uint8]:
    """Return a copy of `rgb` `[H, W, 3]` with the instances drawn on it.

    Args:
        boxes: x1 y1 x2 y2 in whole pixels, inside the picture.
        masks: uint8 `[y2 - y1, x2 - x1]`, the mask inside its box.
        labels, scores: what stands on the label; annotations have no scores.
        classes: class index, which gives the colour; instances of one class differ in lightness.
    """
    canvas = rgb.copy()
    seen: dict[int, int] = {}
    colours = []
    for index in classes:
        colours.append(colour_of(index, seen.get(index, 0)))
        seen[index] = seen.get(index, 0) + 1
    width = max(1, round(min(rgb.shape[:2]) / 320))
    # Large ones first, so that a small instance before a large one stays visible.
    order = sorted(range(len(boxes)), key=lambda i: -int(masks[i].sum()))
    for i in order:
        _fill(canvas, boxes[i], masks[i], colours[i])
    for i in order:
        _outline(canvas, boxes[i], masks[i], colours[i], width)
    image = Image.fromarray(canvas)
    pen = ImageDraw.Draw(image, "RGBA")
    for i in order:
        x1, y1, x2, y2 = boxes[i]
        if x2 > x1 and y2 > y1:
            pen.rectangle((x1, y1, x2 - 1, y2 - 1), outline=(*colours[i], 200), width=width)
    texts = [f"{t} {s:.2f}" for t, s in zip(labels, scores, strict=True)] if scores is not None else labels
    _write_labels(pen, image.size, boxes, texts, colours)
    return np.asarray(image)


def colour_of(class_index: int, nth: int = 0) -> Colour:
    """The colour of the nth instance of a class: a hue for the class, a lightness for the instance."""
    # Steps of the golden ratio keep the hues of neighbouring classes far apart.
    hue = (0.58 + class_index * 0.618034) % 1.0
    lightness = (0.52, 0.64, 0.42, 0.58)[nth % 4]
    red, green, blue = colorsys.hls_to_rgb(hue, lightness, 0.85)
    return round(255 * red), round(255 * green), round(255 * blue)


def _fill(canvas: NDArray[np.uint8], box: Box, mask: NDArray[np.uint8], colour: Colour) -> None:
    if mask.size == 0:
        return
    x1, y1, x2, y2 = box
    region = canvas[y1:y2, x1:x2]
    cv2.copyTo(cv2.addWeighted(region, 1 - _FILL, _plane(mask, colour), _FILL, 0), mask, region)


def _outline(canvas: NDArray[np.uint8], box: Box, mask: NDArray[np.uint8], colour: Colour, width: int) -> None:
    if mask.size == 0:
        return
    # The mask's outermost pixels: what takes the same time for a ragged mask as for a smooth one.
    inner = cv2.erode(mask, None, iterations=width, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    region = canvas[box[1] : box[3], box[0] : box[2]]
    cv2.copyTo(_plane(mask, colour), mask - inner, region)


def _plane(mask: NDArray[np.uint8], colour: Colour) -> NDArray[np.uint8]:
    """As large as the mask, of one colour; several times faster than filling pixel by pixel."""
    return np.asarray(cv2.merge([np.full(mask.shape, value, np.uint8) for value in colour]))


def _write_labels(
    pen: Any, size: tuple[int, int], boxes: Sequence[Box], texts: Sequence[str], colours: Sequence[Colour]
) -> None:
    points = int(np.clip(min(size) / 34, 10, 36))
    pad = max(2, points // 5)
    taken: list[tuple[float, float, float, float]] = []
    for box, text, colour in zip(boxes, texts, colours, strict=True):
        font = font_for(text, points)
        left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
        wide, high = right - left + 2 * pad, bottom - top + 2 * pad
        x, y = _free_place(box, (wide, high), size, taken)
        taken.append((x, y, x + wide, y + high))
        pen.rounded_rectangle((x, y, x + wide - 1, y + high - 1), radius=pad, fill=(*colour, 230))
        pen.text((x + pad - left, y + pad - top), text, font=font, fill=_ink(colour))


def _free_place(
    box: Box, label: tuple[float, float], size: tuple[int, int], taken: Sequence[tuple[float, float, float, float]]
) -> tuple[float, float]:
    """Above the box, inside its top, at its bottom or below it: the first that is free; always inside the picture."""
    wide, high = label
    x = max(0.0, min(box[0], size[0] - wide))
    places = [box[1] - high, box[1], box[3] - high, box[3]]
    inside = [max(0.0, min(y, size[1] - high)) for y in places]
    for y in inside:
        if all(x >= b[2] or x + wide <= b[0] or y >= b[3] or y + high <= b[1] for b in taken):
            return x, y
    return x, inside[0]


def _ink(colour: Colour) -> Colour:
    red, green, blue = colour
    return (20, 20, 20) if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else (255, 255, 255)


def font_for(text: str, points: int) -> Any:
    """A font of Pillow's that has the glyphs of `text`, where the system has one."""
    return _font(points, text.isascii())


@lru_cache(maxsize=16)
def _font(points: int, ascii_only: bool) -> Any:
    if not ascii_only:
        for path in _WIDE_FONTS:
            if Path(path).is_file():
                return ImageFont.truetype(path, points)
    return ImageFont.load_default(points)
