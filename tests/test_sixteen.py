"""All models of the table, each as a tiny variant: trained, evaluated, exported, predicted with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

from tests.export.conftest import SIZE, filled, pictures, recipe_of, tiny
from tests.golden import reference
from tests.pictures import write_dataset
from toolkit import create_pipeline
from toolkit.data.coco import Dataset, find_dataset
from toolkit.data.loader import eval_batches
from toolkit.errors import UserError
from toolkit.evaluate.ap import evaluate
from toolkit.evaluate.detect import detect
from toolkit.export.run import export_model
from toolkit.models import build_model
from toolkit.zoo import MODELS

all_models = pytest.mark.parametrize("name", MODELS)


def drawn(*pictures: list[tuple[int, int, int, int]]) -> dict[str, Any]:
    """A batch of noise, 64 pixels wide and high; each object fills its box (x1 y1 x2 y2) and has class 0, 1, 2, 0 .."""
    masks = [np.zeros((len(objects), 64, 64), np.uint8) for objects in pictures]
    for picture, objects in zip(masks, pictures, strict=True):
        for mask, (x1, y1, x2, y2) in zip(picture, objects, strict=True):
            mask[y1:y2, x1:x2] = 1
    return {
        "image": paddle.to_tensor(np.random.default_rng(0).random((len(pictures), 3, 64, 64), np.float32)),
        "im_shape": paddle.full([len(pictures), 2], 64.0),
        "scale_factor": paddle.ones([len(pictures), 2]),
        "gt_class": [paddle.arange(len(objects)) % 3 for objects in pictures],
        "gt_bbox": [paddle.to_tensor(np.array(objects, np.float32)) for objects in pictures],
        "gt_mask": [paddle.to_tensor(picture) for picture in masks],
    }


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return find_dataset(write_dataset(tmp_path_factory.mktemp("data"), train=2, val=2, side=96))


@all_models
def test_parameters_are_those_of_the_official_weights(name: str) -> None:
    with paddle.LazyGuard():  # Without filling them.
        model = build_model(name, reference.CLASSES, reference.INPUT_SIZE)
    assert reference.described(model) == reference.params(name)


@all_models
def test_every_parameter_learns(name: str) -> None:
    paddle.seed(0)
    model = filled(name)  # Some layers start from zeros, in front of which there is no gradient.
    model.train()
    losses = model(drawn([(4, 4, 40, 40), (30, 20, 60, 60)], [(10, 30, 50, 50)]))
    losses["loss"].backward()
    assert all(np.isfinite(float(loss)) for loss in losses.values())
    norms = {
        key: float("nan") if value.grad is None else float(value.grad.norm())
        for key, value in model.named_parameters()
        if not value.stop_gradient
    }
    assert {key: norm for key, norm in norms.items() if not (np.isfinite(norm) and norm > 0)} == {}


@all_models
def test_it_is_evaluated_exported_and_predicts(name: str, dataset: Dataset, tmp_path: Path) -> None:
    model, recipe = tiny(name), recipe_of(name)
    metrics = evaluate(detect(model, eval_batches(dataset.val, recipe)), dataset.val)
    assert metrics.pictures == 2
    assert metrics.detections > 20
    assert 0 <= metrics.mask_ap < 1

    sizes = [SIZE, (129, 200)]
    certificate = export_model(
        model, recipe=recipe, out=tmp_path / name, pictures=pictures(sizes=sizes), source="generated"
    )
    assert all(agreement.rows > 20 for agreement in certificate.backends.values()), "a check of few rows shows little"

    given = [picture[..., ::-1] for picture in pictures(sizes=sizes)]
    results = list(create_pipeline(tmp_path / name).predict(given, threshold=0.0, batch_size=2))
    for picture, result in zip(given, results, strict=True):
        assert len(result["boxes"]) > 10
        assert all(mask.shape == picture.shape[:2] for mask in result.masks())


@pytest.mark.parametrize("name", ["Mask-RT-DETR-S", "MaskRCNN-ResNet50", "Cascade-MaskRCNN-ResNet50-FPN", "SOLOv2"])
def test_an_unknown_option_is_named_with_the_closest(name: str) -> None:
    with pytest.raises(UserError, match=rf"^model {name}: unknown option freez; did you mean freeze\?$"):
        build_model(name, 3, freez=True)


def test_an_unlike_option_is_named_with_all_there_are() -> None:
    with pytest.raises(UserError, match=r"^model PP-YOLOE_seg-S: unknown option queries; possible are .*freeze"):
        build_model("PP-YOLOE_seg-S", 3, queries=10)
