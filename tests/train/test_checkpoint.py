from __future__ import annotations

from pathlib import Path

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
    train = load_recipe(model).train
    optim = build_optimizer(layer, train)
    return State(layer, optim, ema, Precision(train, layer, optim), Progress(), {"classes": ["a"]})


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
