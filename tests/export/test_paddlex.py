"""PaddleX 3.7.2 reads an exported folder and its config unchanged, in its default mode, and finds the same.

    PADDLEX_PYTHON=/path/to/python pytest -m paddlex -n 0 -s

Figures are printed with `-s`.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.export.conftest import CLASSES, recipe_of
from tests.golden import reference
from toolkit import create_pipeline
from toolkit.data.detections import Detections
from toolkit.data.images import read_rgb
from toolkit.data.masks import Crop
from toolkit.export.run import export_model
from toolkit.models import build_model
from toolkit.pipeline.certificate import compare
from toolkit.pipeline.config import dump_pipeline_config

pytestmark = [
    pytest.mark.paddlex,
    pytest.mark.skipif(
        "PADDLEX_PYTHON" not in os.environ, reason="PADDLEX_PYTHON does not name a Python that has PaddleX"
    ),
]
THRESHOLD = 0.02
SIDE = Path(__file__).with_name("paddlex_side.py")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The golden pictures, and the same at odd sizes, larger and smaller than the network input."""
    folder = tmp_path_factory.mktemp("pictures")
    result = []
    for number in (0, 1):
        rgb = read_rgb(reference.HERE / "data" / "images" / f"{number}.png")
        for width, height in ((320, 256), (501, 333), (191, 233)):
            result.append(folder / f"{number} {width}.png")
            cv2.imwrite(str(result[-1]), cv2.resize(rgb, (width, height))[..., ::-1])
    return result


# Mask-RT-DETR-L and PP-YOLOE_seg-S run with oneDNN in PaddleX's default mode, the others without it.
@pytest.mark.parametrize(
    "name",
    [
        "Mask-RT-DETR-S",
        "Mask-RT-DETR-L",
        "PP-YOLOE_seg-S",
        "SOLOv2",
        "MaskRCNN-ResNet50",
        "MaskRCNN-ResNet50-FPN",
        "Cascade-MaskRCNN-ResNet50-FPN",
    ],
)
def test_same_boxes_and_masks(name: str, pictures: list[Path], tmp_path: Path) -> None:
    recipe = recipe_of(name, size=reference.INPUT_SIZE)
    model = build_model(name, len(CLASSES), reference.INPUT_SIZE)
    reference.load(model, reference.figures(name))
    folder = tmp_path / "ä model"
    export_model(model, recipe=recipe, out=folder, pictures=[read_rgb(p) for p in pictures[:2]], source="golden")
    config = tmp_path / "pipeline.yaml"
    text = dump_pipeline_config(model_name=name, model_dir=folder, threshold=0.5)
    config.write_text(text, encoding="utf-8")

    output = tmp_path / "paddlex.npz"
    command = [os.environ["PADDLEX_PYTHON"], str(SIDE), str(config), str(output), str(THRESHOLD), *map(str, pictures)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    theirs = np.load(output)

    expected = [
        detections(
            json.loads(str(theirs[f"{number}/boxes"])),
            [theirs[key] for key in theirs.files if key.startswith(f"{number}/mask/")],
        )
        for number in range(len(pictures))
    ]
    assert sum(map(len, expected)) > 100, "a test of few rows shows little"
    for engine in ("onnxruntime", "paddle"):
        results = create_pipeline(config, engine=engine).predict([str(p) for p in pictures], threshold=THRESHOLD)
        agreement = compare(expected, [detections(result["boxes"], result["masks"]) for result in results])
        print(f"\n{name} in PaddleX against {engine}: {agreement.describe()}")
        assert agreement.holds


def detections(boxes: list[dict[str, Any]], masks: list[np.ndarray]) -> Detections:
    """A result, as both sides return it."""
    corners = np.array([box["coordinate"] for box in boxes], np.float32).reshape(-1, 4)
    return Detections(
        corners,
        np.array([box["score"] for box in boxes], np.float32),
        np.array([box["cls_id"] for box in boxes], np.int64),
        [
            Crop(mask.astype(np.uint8), round(box[0]), round(box[1]))
            for mask, box in zip(masks, corners.tolist(), strict=True)
        ],
        (0, 0),
    )
