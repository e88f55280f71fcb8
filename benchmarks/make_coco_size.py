"""Annotations of COCO train2017's size: 118,287 pictures, 860,001 annotations, some 450 MB of JSON; by default without
pictures, with --pictures with a small JPEG for each.

    python benchmarks/make_coco_size.py FOLDER [--scale 0.1] [--pictures]
"""

from __future__ import annotations

import argparse
import zlib
from pathlib import Path

import numpy as np
import orjson
from PIL import Image

PICTURES, ANNOTATIONS, CLASSES = 118_287, 860_001, 80
CROWD = 0.012
"""Of the annotations: crowd regions with RLE."""


def make(folder: Path, *, scale: float, pictures: bool) -> None:
    """Write a dataset in COCO's layout whose val split is a 24th of train, as in COCO."""
    for split, part in (("train", 1.0), ("val", 1 / 24)):
        count = max(1, round(PICTURES * scale * part))
        tree = annotations(count, max(1, round(ANNOTATIONS * scale * part)), np.random.default_rng(len(split)))
        (folder / "annotations").mkdir(parents=True, exist_ok=True)
        file = folder / "annotations" / f"instances_{split}2017.json"
        file.write_bytes(orjson.dumps(tree, option=orjson.OPT_SERIALIZE_NUMPY))
        print(f"{file}: {count} pictures, {len(tree['annotations'])} annotations, {file.stat().st_size / 1e6:.0f} MB")
        if pictures:
            (folder / f"{split}2017").mkdir(exist_ok=True)
            for image in tree["images"]:
                draw(folder / f"{split}2017" / image["file_name"], image)


def annotations(count: int, objects: int, rng: np.random.Generator) -> dict[str, list[dict[str, object]]]:
    """Outlines with as many points as COCO's have, of all sizes."""
    images = [
        {"license": 1, "file_name": f"{i:012}.jpg", "coco_url": f"http://images.example.org/{i:012}.jpg", "id": i}
        | {"height": int(h), "width": int(w), "date_captured": "2013-11-14 17:02:52"}
        for i, (h, w) in enumerate(rng.choice([(480, 640), (640, 480), (427, 640), (375, 500)], count))
    ]
    entries = []
    owners = np.sort(rng.integers(0, count, objects))
    for number, owner in enumerate(owners.tolist()):
        height, width = images[owner]["height"], images[owner]["width"]
        radius = min(np.exp(rng.normal(3.4, 1.0)), min(height, width) * 0.45)
        centre = rng.uniform(radius, (width - radius, height - radius))
        points = int(np.clip(rng.gamma(1.7, 16), 4, 600))
        angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
        reach = radius * np.repeat(rng.uniform(0.6, 1, points // 2 + 1), 2)[:points]
        outline = (centre + np.stack([np.cos(angle), np.sin(angle)], 1) * reach[:, None]).round(2)
        low, high = outline.min(0), outline.max(0)
        crowd = rng.random() < CROWD
        x, y = outline[:, 0], outline[:, 1]
        entries.append(
            {
                "segmentation": crowd_rle(height, width, rng) if crowd else [outline.ravel().tolist()],
                "area": float(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2),
                "iscrowd": int(crowd),
                "image_id": owner,
                "bbox": [*low.tolist(), *(high - low).round(2).tolist()],
                "category_id": int(CLASSES * rng.random() ** 2) + 1,
                "id": number + 1,
            }
        )
    categories = [{"supercategory": "thing", "id": i + 1, "name": f"class {i + 1}"} for i in range(CLASSES)]
    return {"images": images, "annotations": entries, "categories": categories}


def crowd_rle(height: int, width: int, rng: np.random.Generator) -> dict[str, object]:
    """A crowd region with counts as numbers."""
    counts = rng.integers(1, 60, 400)
    return {"counts": [*counts.tolist(), height * width - int(counts.sum())], "size": [height, width]}


def draw(path: Path, image: dict[str, object]) -> None:
    """A picture with enough in it that no two look alike."""
    rng = np.random.default_rng(zlib.crc32(path.name.encode()))
    small = Image.fromarray(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8))
    small.resize((image["width"], image["height"])).save(path, quality=85)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--pictures", action="store_true")
    given = parser.parse_args()
    make(given.folder, scale=given.scale, pictures=given.pictures)
