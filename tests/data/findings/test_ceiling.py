from __future__ import annotations

from pathlib import Path

import numpy as np
import paddle
import pytest

from tests.data.findings.broken import Broken
from toolkit.data.coco import read_checked
from toolkit.data.findings.ceiling import GRIDS, LEAST_PIXELS, check_sizes_for, grid_of, mask_ceiling
from toolkit.data.findings.record import Findings
from toolkit.data.layouts import find_sources
from toolkit.data.loader import LEAST_PIXELS as LOADER_LEAST_PIXELS
from toolkit.models import build_model, cascade_mask_rcnn, mask_rcnn, mask_rtdetr, ppyoloe_seg, solov2
from toolkit.recipe import Recipe, load_recipe
from toolkit.zoo import MODELS

SHAPES = Path(__file__).parents[3] / "datasets" / "shapes"


@pytest.fixture(scope="module")
def shapes():
    return read_checked(find_sources(SHAPES)[1])


def recipe(model: str, side: int) -> Recipe:
    return load_recipe(model, {"data.input_size": [side, side], "data.train_sizes": []})


def test_the_ceiling_rises_with_the_input(shapes):
    found = [mask_ceiling(shapes, recipe("Mask-RT-DETR-S", side)) for side in (64, 128, 256, 640)]
    aps = [ceiling.ap for ceiling in found]
    assert aps == sorted(aps)
    assert aps[0] < 0.95
    assert aps[-1] > 0.98
    assert found[0].measured == found[0].instances > 50


def test_a_grid_in_the_box_needs_no_large_input(shapes, monkeypatch):
    monkeypatch.setitem(GRIDS, "solov2", grid_of("MaskRCNN-ResNet50-FPN"))
    small, large = (mask_ceiling(shapes, recipe("SOLOv2", side)) for side in (64, 640))
    assert small.ap == large.ap > 0.95


def test_every_model_has_a_grid():
    assert all(grid_of(name).size for name in MODELS)


@pytest.mark.parametrize(
    ("name", "tiny"),
    [
        ("Mask-RT-DETR-S", mask_rtdetr.TINY),
        ("PP-YOLOE_seg-S", ppyoloe_seg.TINY),
        ("SOLOv2", solov2.TINY),
        ("MaskRCNN-ResNet50", mask_rcnn.TINY),
        ("MaskRCNN-ResNet50-FPN", mask_rcnn.TINY),
        ("Cascade-MaskRCNN-ResNet50-FPN", cascade_mask_rcnn.TINY),
    ],
)
def test_the_grid_is_the_models(name, tiny):
    model = build_model(name, num_classes=2, input_size=(96, 64), **tiny)
    model.eval()
    logits = model.network(paddle.zeros([1, 3, 96, 64]))[3]
    grid = grid_of(name)
    assert grid.frame == getattr(model, "mask_frame", "image")
    # Masks in boxes have a cell more on each side.
    sides = (96 // grid.size, 64 // grid.size) if grid.frame == "image" else (grid.size + 2, grid.size + 2)
    assert tuple(logits.shape[2:]) == sides
    assert grid.clip == model.mask_clip


def test_small_instances_are_named(tmp_path):
    broken = Broken(tmp_path)
    broken.write()
    file = read_checked(find_sources(tmp_path)[0])
    findings = Findings()
    # Pictures of 36 x 48 at 8 x 8: squares of 10 to 16 pixels a side keep 3.7 to 9.5.
    check_sizes_for(file, recipe("Mask-RT-DETR-S", 8), findings)
    assert LEAST_PIXELS == LOADER_LEAST_PIXELS
    pixels = file.area * 64 / (36 * 48)
    assert findings.rows("instance-dropped", file) == np.flatnonzero(pixels < 4).tolist() != []
    assert findings.rows("instance-below-grid", file) == np.flatnonzero((pixels >= 4) & (pixels < 16)).tolist() != []
