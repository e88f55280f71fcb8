"""One training step, the same for a run, its dry run, the search for a batch size and that for a learning rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from numpy.typing import NDArray
from paddle import Tensor, nn, optimizer

from toolkit.train import distributed
from toolkit.train.batch import to_tensors
from toolkit.train.ema import MovingAverage
from toolkit.train.optim import clip_gradients
from toolkit.train.precision import Precision


@dataclass(frozen=True)
class Learner:
    """A model and all that changes with it in a step."""

    model: nn.Layer
    optim: optimizer.Optimizer
    precision: Precision
    ema: MovingAverage | None = None
    clip_norm: float | None = None
    """L2 norm that the gradients of all weights together are clipped to."""

    @cached_property
    def trained(self) -> list[Tensor]:
        return [parameter for parameter in self.model.parameters() if not parameter.stop_gradient]

    @contextmanager
    def as_evaluated(self) -> Iterator[None]:
        """Within this context the model has the weights that are evaluated, and computes as in training."""
        with self.ema.applied() if self.ema else nullcontext(), self.precision.cast():
            yield

    def evaluated_weights(self) -> dict[str, NDArray[Any]]:
        """Those weights in float32, by state_dict key."""
        return {**self.precision.weights(), **(self.ema.weights() if self.ema else {})}


def all_finite(values: dict[str, float]) -> bool:
    return all(map(math.isfinite, values.values()))


def train_step(
    learner: Learner,
    parts: Sequence[dict[str, Any]],
    *,
    lr: float,
    allows: Callable[[dict[str, float]], bool] = all_finite,
) -> dict[str, float]:
    """Compute the gradients of one batch and update the weights by them.

    Args:
        parts: the batch, in equal parts that go through the model one after the other.
        allows: whether the weights may be updated after these losses; by default if they are finite.

    Returns the losses, means over parts and processes, and `grad_norm`, the norm before clipping. `grad_norm` is
    missing where float16 gradients overflowed: that step leaves the weights as they are, and the next is scaled less.
    """
    precision, optim = learner.precision, learner.optim
    optim.set_lr(lr)
    values: dict[str, float] = {}
    for part in parts:
        with precision.cast():
            losses = learner.model(to_tensors(part))
        precision.backward(losses["loss"] / len(parts))
        for name, loss in losses.items():
            values[name] = values.get(name, 0.0) + float(loss) / len(parts)
    distributed.average_gradients(learner.trained)
    values = distributed.average(values)
    norm = clip_gradients(learner.trained, learner.clip_norm, scale=precision.scale)
    overflowed = precision.scaler is not None and precision.scaler.overflowed(norm)
    if not overflowed:
        values["grad_norm"] = norm
    if allows(values) and not overflowed:
        optim.step()
        if learner.ema:
            learner.ema.update()
    optim.clear_grad()
    return values
