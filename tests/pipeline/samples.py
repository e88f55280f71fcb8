"""An exported folder with a sample, and engines that find what they are told to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import yaml

from toolkit.data.coco import Annotation, Split
from toolkit.data.detections import Detections
from toolkit.data.masks import mask_to_rle, rle_area, rle_to_crop
from toolkit.data.preprocess import Prepared
from toolkit.pipeline.sample import Sample, write_detections, write_pictures

Engine = Callable[..., list[Detections]]
SIZES = [(96, 128), (500, 1000)]
BOXES = [(10, 12, 50, 40), (60, 30, 110, 90), (5, 60, 30, 94)]


def annotation(number: int, size: tuple[int, int]) -> Annotation:
    x1, y1, x2, y2 = BOXES[number]
    mask = np.zeros(size, np.uint8)
    mask[y1:y2, x1:x2] = 1
    rle = mask_to_rle(mask)
    return Annotation(number, number % 2, (x1, y1, x2, y2), rle, rle_area(rle), False)


def make_folder(folder: Path) -> Path:
    """A folder as an export leaves it, but for the graphs; the trained model finds the annotations."""
    folder.mkdir(exist_ok=True)
    tree = {
        "Global": {"model_name": "PP-YOLOE_seg-S"},
        "Preprocess": [{"type": "Resize", "target_size": [32, 32], "interp": 2}, {"type": "Permute"}],
        "label_list": ["disc", "square"],
    }
    (folder / "inference.yml").write_text(yaml.safe_dump(tree))
    pictures = [np.full((*size, 3), 90, np.uint8) for size in SIZES]
    annotations = [[annotation(i, size) for i in range(3)] for size in SIZES]
    split = write_pictures(folder, pictures, annotations, classes=tree["label_list"])  # type: ignore[arg-type]
    write_detections(folder, Sample(split, truth(split)))
    return folder


def truth(split: Split) -> list[Detections]:
    """The annotations as detections."""
    return [
        Detections(
            boxes=np.array([a.bbox for a in picture.annotations], np.float32),
            scores=np.linspace(0.9, 0.7, len(picture.annotations), dtype=np.float32),
            labels=np.array([a.category for a in picture.annotations], np.int64),
            masks=[rle_to_crop(a.segmentation) for a in picture.annotations],  # type: ignore[arg-type]
            size=(picture.height, picture.width),
        )
        for picture in split.pictures
    ]


def boxes_of(sample: Sample) -> Engine:
    """Finds what the trained model found."""
    by_size = {found.size: found for found in sample.trained}

    def engine(batch: Sequence[Prepared], *, threshold: float) -> list[Detections]:
        return [by_size[picture.size].above(threshold) for picture in batch]

    return engine


def swapped(engine: Engine) -> Engine:
    """The same with x and y in each other's columns."""

    def wrong(batch: Sequence[Prepared], *, threshold: float) -> list[Detections]:
        return [replace(found, boxes=found.boxes[:, [1, 0, 3, 2]]) for found in engine(batch, threshold=threshold)]

    return wrong
