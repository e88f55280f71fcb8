"""The sample in an exported folder: a few validation pictures with their annotations, a small COCO dataset, and what
the trained model finds in them. Engines are held against it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from toolkit.data.coco import Annotation, Split, load_split
from toolkit.data.detections import Detections, coco_results
from toolkit.data.masks import (
    Crop,
    crop_to_rle,
    mask_to_rle,
    parse_rle,
    rle_area,
    rle_box,
    rle_to_crop,
    segmentation_to_mask,
)
from toolkit.errors import UserError

FOLDER = "sample"
SIDE = 640
"""Larger pictures are made smaller, to this long side."""
ROWS = 100
"""Detections a picture that are kept, the best by score."""


@dataclass(frozen=True)
class Sample:
    """Pictures, their annotations and the trained model's detections, in one order."""

    split: Split
    trained: list[Detections]
    uncertain: list[list[Crop]] | None = None
    """For each mask in `trained` the pixels that rounding may set or not; None in exports of version 0.1."""

    @property
    def annotated(self) -> bool:
        return any(picture.annotations for picture in self.split.pictures)


def write_pictures(
    folder: Path,
    pictures: Sequence[NDArray[np.uint8]],
    annotations: Sequence[Sequence[Annotation]],
    *,
    classes: Sequence[str],
) -> Split:
    """Write `pictures` (uint8 `[H, W, 3]`, RGB, upright) and their annotations into `folder`/sample; read them."""
    place = folder / FOLDER
    place.mkdir()
    images: list[dict[str, Any]] = []
    objects: list[dict[str, Any]] = []
    for number, (rgb, given) in enumerate(zip(pictures, annotations, strict=True)):
        height, width = rgb.shape[:2]
        scale = min(1.0, SIDE / max(height, width))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA) if scale < 1 else rgb
        name = f"{number:03}.png"
        (place / name).write_bytes(cv2.imencode(".png", small[..., ::-1])[1].tobytes())
        images.append({"id": number, "file_name": name, "height": size[1], "width": size[0]})
        for annotation in given:
            mask = segmentation_to_mask(annotation.segmentation, (height, width))
            if scale < 1:
                mask = (cv2.resize(mask * np.uint8(255), size, interpolation=cv2.INTER_AREA) > 127).astype(np.uint8)
            rle = mask_to_rle(mask)
            x1, y1, x2, y2 = rle_box(rle)
            if area := rle_area(rle):
                objects.append(
                    {
                        "id": len(objects) + 1,
                        "image_id": number,
                        "category_id": annotation.category + 1,
                        "bbox": [x1, y1, x2 - x1, y2 - y1],
                        "area": area,
                        "iscrowd": int(annotation.iscrowd),
                        "segmentation": rle,
                    }
                )
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(classes)]
    tree = {"images": images, "annotations": objects, "categories": categories}
    (place / "annotations.json").write_text(json.dumps(tree, ensure_ascii=False), encoding="utf-8")
    return _read_split(place)


def write_detections(folder: Path, sample: Sample) -> None:
    """Write what the trained model found, as a COCO results list whose entries have one more key, `uncertain`."""
    rows = [
        row
        for picture, found in zip(sample.split.pictures, sample.trained, strict=True)
        for row in coco_results(picture.id, found, sample.split.category_ids)
    ]
    if sample.uncertain is not None:
        sizes = [found.size for found in sample.trained for _ in found.masks]
        pixels = [crop for crops in sample.uncertain for crop in crops]
        for row, crop, size in zip(rows, pixels, sizes, strict=True):
            row["uncertain"] = crop_to_rle(crop, size)
    (folder / FOLDER / "detections.json").write_text(json.dumps(rows), encoding="utf-8")


def read_sample(folder: Path) -> Sample | None:
    """The sample in the exported folder; None where it has none.

    Raises UserError if it cannot be read.
    """
    place = folder / FOLDER
    if not place.is_dir():
        return None
    split = _read_split(place)
    try:
        rows = json.loads((place / "detections.json").read_text(encoding="utf-8"))
        by_picture: dict[int, list[dict[str, Any]]] = {picture.id: [] for picture in split.pictures}
        for row in rows:
            by_picture[row["image_id"]].append(row)
        trained = [_detections(by_picture[p.id], (p.height, p.width)) for p in split.pictures]
        uncertain = None
        if all("uncertain" in row for row in rows):
            uncertain = [_crops(by_picture[p.id], "uncertain", (p.height, p.width)) for p in split.pictures]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{place}: not readable ({error!r:.80}); export the model again") from None
    return Sample(split, trained, uncertain)


def _read_split(place: Path) -> Split:
    return load_split(place / "annotations.json", [place], root=place, name=FOLDER, may_be_empty=True)


def _detections(rows: list[dict[str, Any]], size: tuple[int, int]) -> Detections:
    sides = np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4)
    sides[:, 2:] += sides[:, :2]
    return Detections(
        boxes=sides.astype(np.float32),
        scores=np.array([row["score"] for row in rows], np.float32),
        labels=np.array([row["category_id"] - 1 for row in rows], np.int64),
        masks=_crops(rows, "segmentation", size),
        size=size,
    )


def _crops(rows: list[dict[str, Any]], key: str, size: tuple[int, int]) -> list[Crop]:
    return [rle_to_crop(parse_rle(row[key], size)) for row in rows]
