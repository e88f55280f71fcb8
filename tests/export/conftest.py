"""Tiny models with spread-out scores, and their exports."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import paddle
import pytest
from numpy.typing import NDArray
from paddle import nn

from tests.golden import fill
from toolkit.export.certificate import Certificate
from toolkit.export.run import export_model
from toolkit.models import build_model, mask_rtdetr, ppyoloe_seg
from toolkit.recipe import Recipe, parse_recipe

CLASSES = ["disc", "Größe", "cat 猫"]
SIZE = (64, 96)
TINY = {"PP-YOLOE_seg-S": ppyoloe_seg.TINY, "Mask-RT-DETR-S": mask_rtdetr.TINY}


@dataclass(frozen=True)
class Exported:
    model: nn.Layer
    recipe: Recipe
    folder: Path
    certificate: Certificate
    pictures: list[NDArray[np.uint8]]


def recipe_of(name: str, *, size: tuple[int, int] = SIZE) -> Recipe:
    tree = {
        "model": {"name": name},
        "data": {"input_size": list(size)},
        "train": {
            "epochs": 1,
            "batch_size": 1,
            "lr": 1.0,
            "lr_batch_size": 1,
            "optimizer": {"name": "AdamW"},
            "schedule": {"name": "constant"},
        },
        "predict": {"threshold": 0.05},
        "classes": CLASSES,
    }
    return parse_recipe(tree, origin="test")


def tiny(name: str) -> nn.Layer:
    """A tiny variant with made-up weights, batch norms that have seen pictures, and scores that are spread out."""
    model = build_model(name, len(CLASSES), SIZE, **TINY[name], freeze=False)
    values = {k: fill.fill(k, v.shape) for k, v in model.state_dict().items()}
    model.set_state_dict({k: v for k, v in values.items() if v is not None})
    image = np.stack([p.transpose(2, 0, 1) for p in pictures(sizes=[SIZE] * 4)]).astype(np.float32) / 255
    model.train()
    with paddle.no_grad():
        for _ in range(30):
            model.network(paddle.to_tensor(image))
        for key, value in model.state_dict().items():
            if "pred_cls" in key or "score_head" in key:
                value.set_value(value * (20.0 if key.endswith("weight") else 0.5))
    model.eval()
    return model


def pictures(*, sizes: list[tuple[int, int]] | None = None) -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(3)
    return [
        cv2.resize(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
        for height, width in sizes or [(64, 96), (51, 37), (129, 200)]
    ]


@pytest.fixture(scope="session", params=sorted(TINY))
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    name: str = request.param
    model, recipe = tiny(name), recipe_of(name)
    folder = tmp_path_factory.mktemp(name) / "ä model"
    certificate = export_model(model, recipe=recipe, out=folder, pictures=pictures(), source="generated")
    return Exported(model, recipe, folder, certificate, pictures())
