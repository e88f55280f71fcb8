"""Exported models with made-up weights, for measuring where no trained ones are at hand.

    python benchmarks/made_up.py MODEL FOLDER PICTURES

Runs where the checkout is installed by `pip install -e .`, since it takes the weights' rule from the tests.

The model has its own size and 80 classes, random weights, and batch norms that have seen
pictures; the layers that give the scores are scaled up, so that scores differ. `draw_threshold` in the export is the
score that `DETECTIONS` instances a picture reach on average: that many masks are then made, as of a trained model.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import paddle

from tests.random_weights import random_weights
from toolkit.data.images import read_rgb
from toolkit.data.preprocess import Preprocess, steps_of
from toolkit.evaluate.detect import detect_prepared
from toolkit.export.onnx import save_onnx
from toolkit.export.static import save_program, write_description
from toolkit.models import build_model
from toolkit.pipeline.inputs import EXTENSIONS
from toolkit.recipe import load_recipe

DETECTIONS = 15
CLASSES = 80
SPREAD = {"score_head": 3.0, "solo_cate": 5.0, "bbox_score": 6.0}
"""By what the weights of the layers that give the scores are multiplied."""
BACKGROUND = 4.0
"""How much less likely each class is made, as training does: suppression would else sort thousands of boxes."""


def export_made_up(name: str, folder: Path, pictures: list[Path]) -> float:
    """Export `name` with made-up weights into `folder` and return its threshold."""
    recipe = load_recipe(name)
    recipe = recipe.model_copy(update={"classes": [f"class {i}" for i in range(CLASSES)]})
    size = None if recipe.data.keep_ratio else recipe.data.input_size
    model = build_model(name, CLASSES, size, **{**recipe.model.options, "freeze": False})
    values = random_weights({key: value.shape for key, value in model.state_dict().items()})
    for key, factor in SPREAD.items():
        values.update({k: v * factor for k, v in values.items() if key in k and k.endswith("weight")})
    for key, value in values.items():
        if value.ndim == 4 and ("mask_feat_head" in key or "enc_mask" in key):
            # Windows that see the mean alone: Mask-RT-DETR's masks are else raggeder than any trained one's.
            value[:] = value.mean((2, 3), keepdims=True)
        if key.endswith("bias"):
            if "pred_cls" in key or "solo_cate" in key:
                value -= BACKGROUND
            elif "bbox_score" in key:
                value[-1] += BACKGROUND
    model.set_state_dict(values)
    prepare = Preprocess(steps_of(recipe.data), origin="recipe")
    # Of one size, so that the norms see them together.
    prepared = [prepare(cv2.resize(read_rgb(path), (640, 480))) for path in pictures[:4]]
    for layer in model.sublayers():
        if isinstance(layer, paddle.nn.BatchNorm2D):
            layer._momentum = 0.0
    model.train()
    with paddle.no_grad():
        model.network(paddle.to_tensor(np.stack([picture.image for picture in prepared])))
    model.eval()
    scores = np.concatenate([detect_prepared(model, [picture])[0].scores for picture in prepared])
    threshold = float(np.sort(scores)[::-1][DETECTIONS * len(prepared)])
    recipe = recipe.model_copy(update={"predict": recipe.predict.model_copy(update={"threshold": threshold})})
    # No certificate: what made-up weights find hangs on the last bits.
    folder.mkdir(parents=True, exist_ok=True)
    save_program(model, folder, data=recipe.data)
    save_onnx(model, folder, data=recipe.data)
    write_description(folder, recipe=recipe, mask_frame=model.mask_frame, mask_clip=model.mask_clip)
    return threshold


def pictures_in(folder: Path) -> list[Path]:
    """The pictures of a folder, sorted."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in EXTENSIONS)


def made_up(name: str, folder: Path, pictures: list[Path]) -> Path:
    """The export in `folder/name`, made if it is not there."""
    target = folder / name
    if not (target / "inference.yml").is_file():
        print(f"{name}: threshold {export_made_up(name, target, pictures):.3f}", file=sys.stderr)
    return target


if __name__ == "__main__":
    model, folder, pictures = sys.argv[1:]
    made_up(model, Path(folder), pictures_in(Path(pictures)))
