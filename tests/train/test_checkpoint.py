from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

from tests.train.test_kills import assert_same
from toolkit.recipe import Ema, load_recipe
from toolkit.train.checkpoint import Progress, State
from toolkit.train.ema import MovingAverage
from toolkit.train.optim import build_optimizer
from toolkit.train.precision import Precision
from toolkit.weights.load import read_checkpoint


def fresh(model: str) -> State:
    layer = paddle.nn.Sequential(paddle.nn.Linear(3, 4), paddle.nn.BatchNorm1D(4), paddle.nn.Linear(4, 2))
    ema = MovingAverage(layer, Ema(decay=0.9))
    optim = build_optimizer(layer, load_recipe(model).train)
    return State(layer, optim, ema, Precision(None, layer, optim), Progress(), {"classes": ["a"]})


@pytest.mark.parametrize("model", ["PP-YOLOE_seg-S", "Mask-RT-DETR-S"])
def test_what_was_restored_is_saved_again_before_any_step(tmp_path: Path, model: str) -> None:
    """As where a run is resumed just before an evaluation, and killed just after it."""
    state = fresh(model)
    state.model(paddle.ones([5, 3])).sum().backward()
    state.optim.step()
    state.ema.update()
    state.progress.step = 1
    state.save(tmp_path / "one")
    other = fresh(model)
    other.restore(tmp_path / "one")
    other.save(tmp_path / "two")
    assert read_checkpoint(tmp_path / "one")["optimizer"]["0.weight"]
    assert_same(read_checkpoint(tmp_path / "one"), read_checkpoint(tmp_path / "two"))


class Scaler:
    """As Paddle's, which works on accelerators only."""

    def __init__(self) -> None:
        self.kept = {"scale": np.array([65536.0], "float32"), "incr_count": 0}

    def state_dict(self) -> dict[str, Any]:
        return self.kept

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.kept = state


def test_mixed_precision_goes_on_where_it_was(tmp_path: Path) -> None:
    state, other = fresh("Mask-RT-DETR-S"), fresh("Mask-RT-DETR-S")
    state.precision.scaler, other.precision.scaler = Scaler(), Scaler()
    state.precision.scaler.kept = {"scale": np.array([1024.0], "float32"), "incr_count": 7}
    exact = paddle.full([3, 4], 1 / 3)
    state.optim._master_weights = {state.model[0].weight.name: exact}
    state.save(tmp_path / "one")
    other.restore(tmp_path / "one")
    assert other.precision.scaler.kept["scale"] == 1024
    assert other.precision.scaler.kept["incr_count"] == 7
    weights = other.optim._master_weights[other.model[0].weight.name]
    np.testing.assert_array_equal(weights.numpy(), exact.numpy())
