"""PaddleX 3.7.2 reads an exported folder and its config unchanged, in its default mode, and finds the same.

    PADDLEX_PYTHON=/path/to/python pytest -m paddlex

Figures are printed with `-s`.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.golden import reference
from toolkit import create_pipeline
from toolkit.data.images import read_rgb
from toolkit.export.run import export_model
from toolkit.models import build_model
from toolkit.pipeline.config import dump_pipeline_config
from toolkit.recipe import load_recipe

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


# Mask-RT-DETR-S runs without oneDNN in PaddleX's default mode, the other two with it.
@pytest.mark.parametrize("name", ["Mask-RT-DETR-S", "Mask-RT-DETR-L", "PP-YOLOE_seg-S"])
def test_same_boxes_and_masks(name: str, pictures: list[Path], tmp_path: Path) -> None:
    classes = ["a", "b", "c"]
    recipe = load_recipe(name, {"data.input_size": list(reference.INPUT_SIZE), "classes": classes})
    model = build_model(name, len(classes), reference.INPUT_SIZE)
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

    ours = {}
    for engine in ("onnxruntime", "paddle"):
        pipeline = create_pipeline(config, engine=engine)
        ours[engine] = list(pipeline.predict([str(p) for p in pictures], threshold=THRESHOLD))
    for engine, results in ours.items():
        rows = matched = equal_pixels = pixels = 0
        score = box = 0.0
        for number, result in enumerate(results):
            expected = json.loads(str(theirs[f"{number}/boxes"]))
            rows += len(expected)
            assert abs(len(result["boxes"]) - len(expected)) <= 2
            free = set(range(len(result["boxes"])))
            for row, there in enumerate(expected):
                mask = theirs[f"{number}/mask/{row}"]
                close = [
                    (float(np.mean(result["masks"][i] != mask)), i)
                    for i in free
                    if result["boxes"][i]["label"] == there["label"]
                    and abs(result["boxes"][i]["score"] - there["score"]) <= 1e-3
                    and np.abs(np.subtract(result["boxes"][i]["coordinate"], there["coordinate"])).max() <= 0.5
                    and result["masks"][i].shape == mask.shape
                ]
                if not close:
                    continue
                _, i = min(close)
                free.discard(i)
                here = result["boxes"][i]
                matched += 1
                score = max(score, abs(here["score"] - there["score"]))
                box = max(box, float(np.abs(np.subtract(here["coordinate"], there["coordinate"])).max()))
                equal_pixels += int((result["masks"][i] == mask).sum())
                pixels += mask.size
        print(
            f"\n{name} against {engine}: {matched} of {rows} rows, score within {score:.1e}, box within {box:.4f} px, "
            f"{pixels - equal_pixels} of {pixels} mask pixels differ"
        )
        assert rows > 100, "a test of few rows shows little"
        assert matched >= 0.98 * rows
        assert equal_pixels >= 0.999 * pixels
