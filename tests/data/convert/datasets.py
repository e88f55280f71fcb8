"""Datasets as records, drawn by hypothesis, and their pictures on disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from toolkit.data.coco import Annotation, Picture, Split
from toolkit.data.convert.common import annotation_of
from toolkit.data.masks import mask_to_rle, segmentation_to_mask

CLASSES = ("Wäsche", "dog cat", "猫")
IDS = (0, 3, 90)
NAMES = ("a.png", "a.jpg.png", "A.png", "deep/er/a.png", "ü ö/猫.png", "x y.png", "deep/b.png")

sides = st.integers(4, 14)


@st.composite
def shapes(draw: st.DrawFn, size: tuple[int, int]) -> Any:
    """Polygons of one part or two, or an RLE, which may be empty, touch the border or have holes."""
    height, width = size
    if draw(st.booleans()):
        return mask_to_rle(draw(arrays(np.uint8, size, elements=st.integers(0, 1))))
    corners = st.tuples(st.integers(0, 4 * width), st.integers(0, 4 * height))
    parts = draw(st.lists(st.lists(corners, min_size=3, max_size=6), min_size=1, max_size=2))
    return [np.array(part, np.float64).ravel() / 4 for part in parts]


@st.composite
def pictures(draw: st.DrawFn, number: int, name: str, numbers: Any) -> Picture:
    size = draw(st.tuples(sides, sides))
    found = []
    for _ in range(draw(st.integers(0, 3))):
        category = draw(st.integers(0, len(CLASSES) - 1))
        annotation = annotation_of(category, draw(shapes(size)), size, crowd=draw(st.booleans()))
        if annotation is not None:
            extra = draw(st.sampled_from([{}, {"attributes": {"occluded": True}}]))
            found.append(replace(annotation, id=next(numbers), extra=extra))
    extra = draw(st.sampled_from([{}, {"license": 1, "date_captured": "2020"}]))
    return Picture(number, Path(name), name, *size, found, extra)


@st.composite
def parts(draw: st.DrawFn, *, names: tuple[str, ...] = ("train", "val")) -> list[Split]:
    """Parts whose pictures and annotations are counted from 0 over all, at least one object in the first."""
    chosen = draw(st.permutations(NAMES))
    numbers = iter(range(1000))
    cuts = sorted(draw(st.lists(st.integers(1, len(chosen) - 1), min_size=len(names) - 1, max_size=len(names) - 1)))
    result, start = [], 0
    for part, stop in zip(names, [*cuts, len(chosen)], strict=True):
        members = [draw(pictures(i, chosen[i], numbers)) for i in range(start, stop)]
        start = stop
        result.append(Split(part, Path("origin"), CLASSES, IDS, members, (), {"info": {"year": 2020}}, ({},) * 3))
    return [one for one in result if one.pictures]


def on_disk(dataset: list[Split], folder: Path) -> list[Split]:
    """The dataset with its pictures written below `folder`, each with pixels of its own."""
    result = []
    for part in dataset:
        members = []
        for picture in part.pictures:
            path = folder / f"{picture.id}" / picture.file_name
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.full((picture.height, picture.width, 3), picture.id * 9 + 5, np.uint8)
            Image.fromarray(pixels).save(path)
            members.append(replace(picture, path=path))
        result.append(replace(part, pictures=members))
    return result


def pixel(path: Path) -> int:
    """What tells the pictures of `on_disk` apart."""
    with Image.open(path) as image:
        return int(np.asarray(image)[0, 0, 0])


def mask_of(annotation: Annotation, picture: Picture) -> np.ndarray:
    return segmentation_to_mask(annotation.segmentation, (picture.height, picture.width))


def write(path: Path, *, size: tuple[int, int] = (20, 30), orientation: int = 1, grey: int = 100) -> Path:
    """A plain picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.full((*size, 3), grey, np.uint8)).save(path, exif=exif)
    return path
