"""Tiny models with spread-out scores, and their exports."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import paddle
import pytest
from numpy.typing import NDArray
from paddle import nn

from tests.random_weights import random_weights
from toolkit.data.preprocess import Preprocess, steps_of
from toolkit.export.run import export_model
from toolkit.models import build_model
from toolkit.pipeline.certificate import Certificate
from toolkit.recipe import Recipe, load_recipe
from toolkit.zoo import find_model

CLASSES = ["disc", "Größe", "cat 猫"]
SIZE = (128, 192)
NAMES = (
    "Cascade-MaskRCNN-ResNet50-FPN",
    "Mask-RT-DETR-S",
    # Without a pyramid each step of a test takes many seconds; tests/test_sixteen.py has it too.
    pytest.param("MaskRCNN-ResNet50", marks=pytest.mark.slow),
    "MaskRCNN-ResNet50-FPN",
    "PP-YOLOE_seg-S",
    "SOLOv2",
)
HAS_OPENVINO = find_spec("openvino") is not None
needs_openvino = pytest.mark.skipif(not HAS_OPENVINO, reason="OpenVINO is not here; pip install openvino")
SPREAD = {"pred_cls": 20.0, "score_head": 20.0, "solo_cate": 5.0, "bbox_score": 20.0}
"""By what the weights of the layers that give the scores are multiplied."""


@dataclass(frozen=True)
class Exported:
    model: nn.Layer
    recipe: Recipe
    folder: Path
    certificate: Certificate
    pictures: list[NDArray[np.uint8]]


def recipe_of(name: str, *, size: tuple[int, int] = SIZE) -> Recipe:
    """The model's own recipe, for small pictures."""
    recipe = load_recipe(name, {"data.input_size": list(size), "predict.threshold": 0.05})
    return recipe.model_copy(update={"classes": CLASSES})


def tiny_options(name: str) -> dict[str, Any]:
    """Overrides for the tiny variant of any model."""
    options: dict[str, Any] = import_module(f"toolkit.models.{find_model(name).family}").TINY
    return {**options, "freeze": False}


def filled(name: str) -> nn.Layer:
    """A tiny variant with made-up weights."""
    model = build_model(name, len(CLASSES), SIZE, **tiny_options(name))
    model.set_state_dict(random_weights({key: value.shape for key, value in model.state_dict().items()}))
    return model


def tiny(name: str) -> nn.Layer:
    """A tiny variant with made-up weights, batch norms that have seen pictures, and scores that are spread out."""
    model = filled(name)
    prepare = Preprocess(steps_of(recipe_of(name).data), origin="recipe")
    image = np.stack([prepare(picture).image for picture in pictures(sizes=[SIZE] * 4)])
    for layer in model.sublayers():
        if isinstance(layer, paddle.nn.BatchNorm2D):
            layer._momentum = 0.05  # They know little but this batch; still, no variance is near 0.
    model.train()
    with paddle.no_grad():
        model.network(paddle.to_tensor(image))
        for key, value in model.state_dict().items():
            for part, factor in SPREAD.items():
                if part in key:
                    value.set_value(value * (factor if key.endswith("weight") else 0.5))
    model.eval()
    return model


def pictures(*, sizes: list[tuple[int, int]] | None = None) -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(5)
    return [
        cv2.resize(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
        for height, width in sizes or [(128, 192), (151, 137), (229, 300)]
    ]


@pytest.fixture(scope="session", params=NAMES)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    name: str = request.param
    model, recipe = tiny(name), recipe_of(name)
    folder = tmp_path_factory.mktemp(name) / "ä model"
    certificate = export_model(model, recipe=recipe, out=folder, pictures=pictures(), source="generated")
    return Exported(model, recipe, folder, certificate, pictures())
