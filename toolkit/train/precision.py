"""Mixed precision on accelerators (Micikevicius et al. 2018, arXiv:1710.03740)."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import paddle
from numpy.typing import NDArray
from paddle import Tensor, nn, optimizer

from toolkit.errors import UserError
from toolkit.nn.low_precision import LOW, assign, to_numpy
from toolkit.recipe import Train
from toolkit.train.optim import NORMS


class Precision:
    """How a model computes, and the float32 weights behind those that it holds in fewer bits.

    `train.amp: O1` computes convolutions and products in `train.amp_dtype`, with float32 weights. `O2` computes nearly
    everything in it and casts the weights as well, except those of norms; the optimizer updates float32 master weights.
    On the CPU, where Paddle computes in float32 all the same, neither does anything.

    Accelerators: not run here. The tests check the bookkeeping (casts, scaling, master weights, files) on a CPU that
    stands in for one; speed, memory and the numbers that float16 kernels give are unproven.

    Raises UserError if the device does not compute in `train.amp_dtype`.
    """

    def __init__(self, settings: Train, model: nn.Layer, optim: optimizer.Optimizer) -> None:
        self._model, self._dtype = model, settings.amp_dtype
        self.ignored = settings.amp is not None and paddle.device.get_device() == "cpu"
        self._level = None if self.ignored else settings.amp
        if self._level:
            self._require_support()
        self.scaler: LossScaler | None = LossScaler() if self._level and self._dtype == "float16" else None
        self.masters = _decorate(model, optim, self._dtype) if self._level == "O2" else {}
        """float32, by state_dict key, of each weight that the model holds in fewer bits."""

    def cast(self) -> AbstractContextManager[Any]:
        """The context for forward passes, in training and in evaluation."""
        if self._level is None:
            return nullcontext()
        context: AbstractContextManager[Any] = paddle.amp.auto_cast(level=self._level, dtype=self._dtype)
        return context

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of `scale` times `loss`."""
        (loss.astype("float32") * self.scale if self.scaler else loss).backward()

    @property
    def scale(self) -> float:
        """What the gradients are multiplied by."""
        return self.scaler.scale if self.scaler else 1.0

    def weights(self) -> dict[str, NDArray[Any]]:
        """Copies of the weights by state_dict key; float32, whatever the model computes in."""
        return {name: to_numpy(self.masters.get(name, value)) for name, value in self._model.state_dict().items()}

    def load_weights(self, weights: dict[str, NDArray[Any]]) -> None:
        """Put back what `weights` gave, into the model and the master weights."""
        for name, value in self._model.state_dict().items():
            assign(value, weights[name])
        for name, master in self.masters.items():
            assign(master, weights[name])

    def state(self) -> dict[str, Any]:
        """What a resumed run needs besides the weights."""
        return {"scale": self.scaler.scale, "incr_count": self.scaler.finite_steps} if self.scaler else {}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave, or from the state of Paddle's `GradScaler` that version 0.1 saved."""
        if self.scaler and state:
            self.scaler.scale = np.asarray(state["scale"]).item()
            self.scaler.finite_steps = state["incr_count"]

    def _require_support(self) -> None:
        square = paddle.ones([2, 2])
        with self.cast():
            computed = paddle.matmul(square, square).dtype
        if computed != getattr(paddle, self._dtype):
            raise UserError(
                f"train.amp_dtype {self._dtype}: {paddle.device.get_device()} does not compute in it; set the other of "
                "float16 and bfloat16, or leave out train.amp"
            )


class LossScaler:
    """Enlarges the loss so that small gradients do not vanish in float16, as far as large ones do not overflow."""

    START = 2.0**16
    GROW_AFTER = 2000
    """Steps without overflow."""

    def __init__(self) -> None:
        self.scale = self.START
        self.finite_steps = 0

    def overflowed(self, norm: float) -> bool:
        """Whether a step whose gradients have this norm is to be left out because the scale was too large.

        Adapts the scale. Gradients that are not finite at a scale of 1 are no overflow: something else is wrong.
        """
        if math.isfinite(norm):
            self.finite_steps += 1
            if self.finite_steps == self.GROW_AFTER:
                self.scale, self.finite_steps = 2 * self.scale, 0
            return False
        self.finite_steps = 0
        if self.scale == 1:
            return False
        self.scale = max(1.0, self.scale / 2)
        return True


@paddle.no_grad()
def _decorate(model: nn.Layer, optim: optimizer.Optimizer, dtype: str) -> dict[str, Tensor]:
    """Cast the weights of `model`; return float32 master weights by state_dict key, those of `optim` among them."""
    exact = {name: to_numpy(value) for name, value in model.state_dict().items()}
    # Paddle itself would cast group norms, and layer norms to bfloat16.
    paddle.amp.decorate(
        models=model, optimizers=optim, level="O2", dtype=dtype, master_weight=True, excluded_layers=list(NORMS)
    )
    masters: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        if value.dtype not in LOW:
            continue
        if value.stop_gradient:
            masters[name] = paddle.to_tensor(exact[name], place=paddle.CPUPlace())
        else:
            # Paddle makes them at the first step, of weights that are rounded already.
            masters[name] = optim._create_master_weight(value)
            masters[name].set_value(exact[name])
    return masters
