from __future__ import annotations

import numpy as np
import paddle
import pytest

from tests.golden import reference

# Five to ten minutes on one core, since their heads run convolutions on each of a thousand regions.
SLOW = ("MaskRCNN-ResNet50", "MaskRCNN-ResNeXt101-vd-FPN")

measured = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in reference.MEASURED]
)


@measured
def test_inference_equals_the_reference(name: str) -> None:
    assert reference.over(reference.inference(name)) == {}


@measured
def test_training_equals_the_reference(name: str) -> None:
    assert reference.over(reference.training(name, steps=2)) == {}


@pytest.mark.slow
@measured
def test_a_further_step_equals_the_reference(name: str) -> None:
    assert reference.over(reference.training(name, steps=3)) == {}


def test_training_with_denoising_equals_the_reference() -> None:
    off = reference.training("Mask-RT-DETR-S", prefix="train_dn", steps=2, num_denoising=100)
    assert reference.over(off) == {}


@pytest.mark.parametrize("name", ["MaskRCNN-ResNet50-FPN", "Mask-RT-DETR-S"])
def test_one_changed_weight_shows(name: str) -> None:
    golden, model = reference.figures(name), reference.built(name)
    model.eval()
    weights = [value for key, value in model.backbone.named_parameters() if value.ndim == 4]
    middle = weights[len(weights) // 2]
    changed = middle.numpy()
    largest = np.abs(changed).argmax()
    changed.flat[largest] *= -1
    middle.set_value(changed)
    with paddle.no_grad():
        last = model.backbone(reference.batch(name, train=False)["image"])[-1]
    count = sum(key.startswith("eval/backbone/") and key.endswith("/sample") for key in golden.files)
    assert reference.map_deviation(golden, f"eval/backbone/{count - 1}", last) > 2 * reference.MAP
