from __future__ import annotations

import numpy as np
import paddle
import pytest
from paddle import nn

from toolkit.recipe import Ema
from toolkit.train.ema import MovingAverage


def model() -> nn.Layer:
    paddle.seed(0)
    layer = nn.Sequential(("frozen", nn.Linear(2, 2)), ("free", nn.Linear(2, 2)), ("norm", nn.BatchNorm1D(2)))
    for parameter in layer.frozen.parameters():
        parameter.stop_gradient = True
    return layer


def test_the_average_follows_the_formula() -> None:
    layer = model()
    ema = MovingAverage(layer, Ema(decay=0.9, ramp="threshold"))
    expected = layer.free.weight.numpy().copy()
    for step in range(5):
        layer.free.weight.set_value(np.full((2, 2), float(step), "float32"))
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
        ema.update()
    assert ema.average["free.weight"].numpy() == pytest.approx(expected, rel=1e-5)


def test_the_exponential_ramp_starts_small() -> None:
    ema = MovingAverage(model(), Ema(decay=0.9999))
    assert ema.decay() == pytest.approx(0.9999 * (1 - np.exp(-1 / 2000)))
    ema.steps = 100_000
    assert ema.decay() == pytest.approx(0.9999)


def test_frozen_weights_are_left_out_and_running_statistics_are_in() -> None:
    ema = MovingAverage(model(), Ema(decay=0.9))
    assert set(ema.average) == {"free.weight", "free.bias", "norm.weight", "norm.bias", "norm._mean", "norm._variance"}


def test_it_is_applied_for_a_while_only() -> None:
    layer = model()
    ema = MovingAverage(layer, Ema(decay=0.9))
    averaged = layer.free.weight.numpy().copy()
    layer.free.weight.set_value(np.full((2, 2), 7.0, "float32"))
    with ema.applied():
        assert layer.free.weight.numpy() == pytest.approx(averaged)
    assert layer.free.weight.numpy() == pytest.approx(np.full((2, 2), 7.0))


def test_its_state_comes_back() -> None:
    layer = model()
    ema = MovingAverage(layer, Ema(decay=0.9))
    layer.free.weight.set_value(np.full((2, 2), 7.0, "float32"))
    ema.update()
    other = MovingAverage(model(), Ema(decay=0.9))
    other.load(ema.state())
    assert other.steps == 1
    assert other.average["free.weight"].numpy() == pytest.approx(ema.average["free.weight"].numpy())


def test_weights_in_float16_are_averaged_in_float32() -> None:
    layer = model()
    layer.free.to(dtype="float16")
    ema = MovingAverage(layer, Ema(decay=0.9, ramp="threshold"))
    ema.steps = 10_000
    layer.free.weight.set_value(np.full((2, 2), 1.0, "float16"))
    ema.average["free.weight"].set_value(np.full((2, 2), 1.001, "float32"))
    ema.update()
    assert ema.average["free.weight"].numpy() == pytest.approx(np.full((2, 2), 1.0009), rel=1e-6)
    with ema.applied():
        assert layer.free.weight.dtype == paddle.float16
    assert (layer.free.weight.numpy() == 1).all()
