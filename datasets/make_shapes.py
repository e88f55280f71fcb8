"""Make `datasets/shapes`, the sample dataset: circles, rectangles and triangles with instance masks.

    python datasets/make_shapes.py [FOLDER]

Needs numpy, OpenCV and pycocotools. The layout is PaddleX's: `images/`, `annotations/instance_train.json` and
`annotations/instance_val.json`. Every picture is drawn from its own seed, so the same annotations come out byte for
byte; the JPEG files may differ with the version of OpenCV's encoder.

What is in it, because real data has it: classes that have their range of colours, pictures of different sizes, textured
backgrounds, strokes that are no object, noise, shapes cut by the border, shapes that cover others (masks show the
visible part only, so some have several parts, and those with a hole are RLE), pictures without any object, and in each
split one crowd region.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as codec

CLASSES = ("circle", "rectangle", "triangle")
PICTURES = {"train": 240, "val": 40}
SEEDS = {"train": 1, "val": 2}
SUBPIXELS = 4
"""Shapes are drawn at this multiple of the size: smooth edges, outlines finer than a pixel."""
NEGATIVE_EVERY = 25
CROWD_AT = 12
JPEG_QUALITY = 72

Mask = NDArray[np.bool_]
Rgb = NDArray[np.float64]


@dataclass(frozen=True)
class Shape:
    category: int
    mask: Mask
    """Visible part, at SUBPIXELS times the size of the picture."""
    whole: int
    """Subpixels that the shape has when nothing covers it."""
    crowd: bool = False


def main(folder: Path) -> None:
    """Write pictures and annotations of both splits into `folder`."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "annotations").mkdir(exist_ok=True)
    for split, count in PICTURES.items():
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for index in range(count):
            rng = np.random.default_rng([SEEDS[split], index])
            picture, shapes = draw_picture(rng, index)
            name = f"{split}_{index:03d}.jpg"
            cv2.imwrite(str(folder / "images" / name), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
            height, width = picture.shape[:2]
            images.append({"id": index + 1, "file_name": name, "width": width, "height": height})
            for shape in shapes:
                annotations.append(
                    {"id": len(annotations) + 1, "image_id": index + 1, **describe(shape, compressed=index % 2 == 0)}
                )
        tree = {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": i + 1, "name": name, "supercategory": "shape"} for i, name in enumerate(CLASSES)],
        }
        text = json.dumps(tree, separators=(",", ":"))
        (folder / "annotations" / f"instance_{split}.json").write_text(text + "\n", encoding="utf-8")


def draw_picture(rng: np.random.Generator, index: int) -> tuple[NDArray[np.uint8], list[Shape]]:
    """One picture, uint8 `[H, W, 3]` RGB, and its shapes from back to front."""
    height, width = (int(side) for side in rng.integers(168, 217, size=2))
    if index % 4:
        height = width = 192
    image = background(rng, height, width)
    shapes: list[Shape] = []
    if index % NEGATIVE_EVERY != NEGATIVE_EVERY - 1:
        if index == CROWD_AT:
            image, crowd = draw_crowd(rng, image)
            shapes.append(crowd)
        for _ in range(int(rng.integers(2, 6))):
            image, shapes = add_shape(rng, image, shapes)
    image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.3, 0.8)))
    image += rng.normal(0, rng.uniform(2, 7), image.shape)
    return image.clip(0, 255).round().astype(np.uint8), shapes


def background(rng: np.random.Generator, height: int, width: int) -> Rgb:
    """A gradient between two colours, with stripes, cloudy texture and a few strokes."""
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    angle = rng.uniform(0, 2 * np.pi)
    ramp = (x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle) + 0.5
    first, second = rng.uniform(15, 115, (2, 3))
    image = first + (second - first) * ramp[..., None]
    if rng.random() < 0.5:
        angle, period = rng.uniform(0, np.pi), rng.uniform(0.04, 0.2)
        wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / period)
        image += wave[..., None] * rng.uniform(3, 10)
    coarse = rng.normal(0, rng.uniform(3, 9), (12, 12, 3))
    image += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(int(rng.integers(0, 3))):
        ends = rng.integers(0, (width, height), size=(2, 2)).tolist()
        cv2.line(image, ends[0], ends[1], rng.uniform(20, 150, 3).tolist(), int(rng.integers(1, 3)), cv2.LINE_AA)
    return image


def add_shape(rng: np.random.Generator, image: Rgb, shapes: list[Shape]) -> tuple[Rgb, list[Shape]]:
    """Put one shape in front; nothing happens where no place leaves every shape well visible."""
    height, width = image.shape[:2]
    for _ in range(10):
        category = int(rng.integers(3))
        radius = rng.uniform(28, 56)
        centre = rng.uniform(0.4 * radius, (width - 0.4 * radius, height - 0.4 * radius))
        mask = outline(rng, category, centre, radius, height, width)
        covered = [Shape(shape.category, shape.mask & ~mask, shape.whole, shape.crowd) for shape in shapes]
        new = Shape(category, mask, max(int(mask.sum()), round(1.2 * (radius * SUBPIXELS) ** 2)))
        if all(well_visible(shape) for shape in (*covered, new)):
            return paint(rng, image, mask, category), [*covered, new]
    return image, shapes


def well_visible(shape: Shape) -> bool:
    """Whether one can tell what it is: at least 60 % and 120 pixels of it."""
    area = int(shape.mask.sum())
    return area >= 0.6 * shape.whole and area >= 120 * SUBPIXELS**2


def outline(
    rng: np.random.Generator, category: int, centre: NDArray[np.float64], radius: float, height: int, width: int
) -> Mask:
    """The inside of a turned shape: an ellipse close to a circle, a rectangle or a triangle."""
    y, x = (np.mgrid[0 : height * SUBPIXELS, 0 : width * SUBPIXELS] + 0.5) / SUBPIXELS
    angle = rng.uniform(0, 2 * np.pi)
    u = ((x - centre[0]) * np.cos(angle) + (y - centre[1]) * np.sin(angle)) / radius
    v = ((y - centre[1]) * np.cos(angle) - (x - centre[0]) * np.sin(angle)) / radius
    squeeze = rng.uniform(0.85, 1.0) if category == 0 else rng.uniform(0.6, 1.0)
    if category == 0:
        return u**2 + (v / squeeze) ** 2 <= 1
    if category == 1:
        return (np.abs(u) <= 0.9) & (np.abs(v) <= 0.9 * squeeze)
    corner = np.pi / 6
    sides = [v >= -0.5, *(sign * u * np.cos(corner) + v * np.sin(corner) <= 0.5 for sign in (-1, 1))]
    return np.logical_and.reduce(sides)


def paint(rng: np.random.Generator, image: Rgb, mask: Mask, category: int) -> Rgb:
    """Fill `mask` with a colour that stands out from what was there, shaded and lightly striped."""
    height, width = image.shape[:2]
    cover = mask.reshape(height, SUBPIXELS, width, SUBPIXELS).mean((1, 3))[..., None]
    behind = (image * cover).sum((0, 1)) / cover.sum()
    colour = bright_colour(rng, category)
    while np.abs(colour - behind).max() < 70:
        colour = bright_colour(rng, category)
    y, x = np.mgrid[0:height, 0:width]
    angle = rng.uniform(0, 2 * np.pi)
    along = x * np.cos(angle) + y * np.sin(angle)
    shade = rng.uniform(-0.35, 0.35) * (along - along.mean())
    stripes = rng.uniform(0, 5) * np.sin(along * 2 * np.pi / rng.uniform(5, 20))
    return image + (colour + (shade + stripes)[..., None] - image) * cover


def bright_colour(rng: np.random.Generator, category: int) -> NDArray[np.float64]:
    """Brighter than the backgrounds in the channel of the category: as things have, each has its range of colours."""
    colour = rng.uniform(30, 160, 3)
    colour[category] = rng.uniform(180, 245)
    return colour


def draw_crowd(rng: np.random.Generator, image: Rgb) -> tuple[Rgb, Shape]:
    """A corner full of small circles, which nobody would outline one by one."""
    height, width = image.shape[:2]
    total = np.zeros((height * SUBPIXELS, width * SUBPIXELS), bool)
    for _ in range(30):
        centre = rng.uniform(4, 60, 2)
        mask = outline(rng, 0, centre, rng.uniform(4, 6), height, width)
        image = paint(rng, image, mask, 0)
        total |= mask
    return image, Shape(0, total, int(total.sum()), crowd=True)


def describe(shape: Shape, *, compressed: bool) -> dict[str, Any]:
    """The annotation: polygons, or RLE where the mask has a hole or is a crowd."""
    contours, hierarchy = cv2.findContours(shape.mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    hole = bool((hierarchy[0, :, 3] >= 0).any())
    height, width = (side // SUBPIXELS for side in shape.mask.shape)
    common = {"category_id": shape.category + 1, "iscrowd": int(shape.crowd)}
    if hole or shape.crowd:
        mask = shape.mask.reshape(height, SUBPIXELS, width, SUBPIXELS).mean((1, 3)) >= 0.5
        rle = codec.encode(np.asfortranarray(mask, dtype=np.uint8))
        counts = rle["counts"].decode("ascii") if compressed else run_lengths(mask)
        return {
            **common,
            "segmentation": {"size": [height, width], "counts": counts},
            "bbox": codec.toBbox(rle).tolist(),
            "area": int(codec.area(rle)),
        }
    polygons = [
        ((simplified(contour[:, 0]) + 0.5) / SUBPIXELS).round(2).ravel().tolist()
        for contour in contours
        # A few pixels of a part are left standing between two others.
        if cv2.contourArea(contour) >= 4 * SUBPIXELS**2
    ]
    points = np.concatenate(polygons).reshape(-1, 2)
    low, high = points.min(0), points.max(0)
    return {
        **common,
        "segmentation": polygons,
        "bbox": [round(float(value), 2) for value in (*low, *(high - low))],
        "area": round(int(shape.mask.sum()) / SUBPIXELS**2, 2),
    }


def simplified(points: NDArray[np.int32], tolerance: float = 1.0) -> NDArray[np.int32]:
    """The closed outline `[n, 2]` with fewer points (Douglas and Peucker, 1973; OpenCV's differs between versions)."""
    far = int(((points - points[0]) ** 2).sum(1).argmax())
    closed = np.concatenate([points, points[:1]])
    kept = {0, far}
    pending = [(0, far), (far, len(points))]
    while pending:
        first, last = pending.pop()
        (x, y), (u, v) = closed[first].tolist(), closed[last].tolist()
        length = max(1e-9, float(np.hypot(u - x, v - y)))
        between = closed[first + 1 : last]
        distance = np.abs((u - x) * (between[:, 1] - y) - (v - y) * (between[:, 0] - x)) / length
        if len(between) and distance.max() > tolerance:
            middle = first + 1 + int(distance.argmax())
            kept.add(middle)
            pending += [(first, middle), (middle, last)]
    return points[sorted(kept)]


def run_lengths(mask: Mask) -> list[int]:
    """Uncompressed RLE: lengths of the runs down the columns, the first of zeros."""
    flat = np.concatenate([[False], mask.ravel(order="F"), [not mask[-1, -1]]])
    return np.diff(np.concatenate([[0], np.flatnonzero(np.diff(flat))])).tolist()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "shapes")
