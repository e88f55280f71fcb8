"""What is found in a picture does not depend on the company it is evaluated in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import paddle
import pytest

from tests.export.conftest import recipe_of, tiny
from tests.pictures import write_dataset
from toolkit.data.coco import find_dataset
from toolkit.data.loader import eval_batches
from toolkit.evaluate.detect import detect, detect_prepared
from toolkit.pipeline.certificate import compare


@pytest.mark.parametrize("name", ["Cascade-MaskRCNN-ResNet50-FPN", "PP-YOLOE_seg-S", "SOLOv2"])
def test_a_picture_alone_and_in_a_batch_of_others(name: str, tmp_path: Path) -> None:
    split = find_dataset(write_dataset(tmp_path / "data", val=3, side=66)).val
    model, recipe = tiny(name), recipe_of(name)
    together = recipe.model_copy(update={"evaluate": recipe.evaluate.model_copy(update={"batch_size": 3})})
    [batch] = eval_batches(split, together)
    shapes = {(prepared.image.shape, prepared.im_shape) for _, prepared in batch}
    assert (len(shapes) > 1) == recipe.data.keep_ratio, "where the ratio is kept they are padded differently"
    alone = dict(detect(model, eval_batches(split, recipe)))
    both = dict(detect(model, [batch]))
    assert list(alone) == list(both)
    agreement = compare(list(alone.values()), list(both.values()))
    assert agreement.rows > 50
    assert agreement.matched >= agreement.rows - 1
    assert agreement.mask_iou_mean > 0.999


@pytest.mark.parametrize("name", ["MaskRCNN-ResNet50-FPN", "SOLOv2"])
def test_nothing_is_found_in_the_padding(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network is told where the picture ends: boxes are cut there before they compete with each other."""
    from toolkit.data.preprocess import Prepared

    model = tiny(name)
    image = np.zeros((3, 64, 96), np.float32)
    image[:, :40, :50] = np.random.default_rng(0).random((3, 40, 50), np.float32)
    told = []
    network = model.network

    def watched(image: paddle.Tensor, im_shape: paddle.Tensor, threshold: paddle.Tensor) -> tuple[paddle.Tensor, ...]:
        outputs: tuple[paddle.Tensor, ...] = network(image, im_shape, threshold)
        told.append((im_shape.tolist(), float(outputs[0][..., [0, 2]].max()), float(outputs[0][..., [1, 3]].max())))
        return outputs

    monkeypatch.setattr(model, "network", watched)
    [found] = detect_prepared(model, [Prepared(image, (40, 50), (1.0, 1.0), (40, 50))])
    assert told == [([[40.0, 50.0]], 50.0, 40.0)]
    assert len(found) > 20
