"""Exponential moving average of a model's weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import paddle
from numpy.typing import NDArray
from paddle import Tensor, nn

from toolkit.nn.low_precision import assign, to_numpy
from toolkit.recipe import Ema


class MovingAverage:
    """Keeps `average <- d average + (1 - d) weights` for all floating-point weights and buffers that change.

    What is frozen is left out.

    Args:
        masters: float32 weights by state_dict key, of which `model` holds rounded copies.
    """

    def __init__(self, model: nn.Layer, settings: Ema, masters: Mapping[str, Tensor] | None = None) -> None:
        self.settings = settings
        self.steps = 0
        # Paddle counts the running statistics of norms among the parameters that do not train.
        frozen = {
            name
            for name, parameter in model.named_parameters()
            if parameter.stop_gradient and not name.endswith(("._mean", "._variance"))
        }
        self._live: dict[str, Tensor] = {
            name: value
            for name, value in model.state_dict().items()
            if name not in frozen and paddle.is_floating_point(value)
        }
        self._exact = {**self._live, **{name: value for name, value in (masters or {}).items() if name in self._live}}
        # In float32 also where the weights are in float16, which cannot hold a small change of a large number.
        self.average: dict[str, Tensor] = {
            name: value.detach().astype("float32").clone() for name, value in self._exact.items()
        }

    def decay(self) -> float:
        """The decay d at the current step: small at first, so that the start is forgotten."""
        if self.settings.ramp == "exponential":
            return self.settings.decay * (1 - math.exp(-(self.steps + 1) / 2000))
        return min(self.settings.decay, (1 + self.steps) / (10 + self.steps))

    @paddle.no_grad()
    def update(self) -> None:
        """Take in the model's weights after an optimizer step."""
        share = 1 - self.decay()
        for name, average in self.average.items():
            # Three times as fast as lerp_ on a CPU.
            average.scale_(1 - share).add_(self._exact[name].astype("float32") * share)
        self.steps += 1

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within this context the model has the averaged weights."""
        own = {name: to_numpy(value) for name, value in self._live.items()}
        self._put(self.weights())
        try:
            yield
        finally:
            self._put(own)

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """Copies of the averages, by state_dict key."""
        return {name: value.numpy() for name, value in self.average.items()}

    def state(self) -> dict[str, object]:
        return {"steps": self.steps, "average": self.weights()}

    def load(self, state: dict[str, object]) -> None:
        self.steps = int(state["steps"])  # type: ignore[call-overload]
        for name, value in state["average"].items():  # type: ignore[attr-defined]
            self.average[name].set_value(value)

    def _put(self, values: dict[str, NDArray[np.float32]]) -> None:
        for name, value in values.items():
            assign(self._live[name], value)
