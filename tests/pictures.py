"""Small datasets made on the spot: coloured discs and squares on a plain ground, in PaddleX's layout."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

CLASSES = ("disc", "square")


def write_dataset(folder: Path, *, train: int = 8, val: int = 4, side: int = 64, seed: int = 0) -> Path:
    """Write `train` + `val` pictures of about `side` pixels with their annotations; return `folder`."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    (folder / "annotations").mkdir()
    for split, count in (("train", train), ("val", val)):
        images, annotations = [], []
        for number in range(count):
            width, height = side, side - 2 * (number % 3)
            name = f"{split} {number}.png"
            picture = Image.new("RGB", (width, height), tuple(rng.integers(0, 60, 3).tolist()))
            images.append({"id": number, "file_name": name, "width": width, "height": height})
            for slot in range(2):
                category = int(rng.integers(0, 2))
                radius = float(rng.uniform(0.12, 0.2) * side)
                x, y = (0.25 + 0.5 * slot) * width, float(rng.uniform(0.3, 0.7)) * height
                angles = np.linspace(0, 2 * np.pi, 24 if category == 0 else 4, endpoint=False) + np.pi / 4
                corners = np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], axis=1)
                colour = (255, 90, 40) if category == 0 else (60, 200, 255)
                ImageDraw.Draw(picture).polygon([tuple(corner) for corner in corners.tolist()], fill=colour)
                low, high = corners.min(0), corners.max(0)
                annotations.append(
                    {
                        "id": len(annotations),
                        "image_id": number,
                        "category_id": category + 7,
                        "segmentation": [corners.reshape(-1).round(2).tolist()],
                        "bbox": [*low.tolist(), *(high - low).tolist()],
                        "area": float(np.prod(high - low)),
                        "iscrowd": 0,
                    }
                )
            picture.save(folder / "images" / name)
        categories = [{"id": i + 7, "name": name} for i, name in enumerate(CLASSES)]
        tree = {"images": images, "annotations": annotations, "categories": categories}
        (folder / "annotations" / f"instance_{split}.json").write_text(json.dumps(tree))
    return folder
