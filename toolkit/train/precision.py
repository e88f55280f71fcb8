"""Mixed precision on accelerators (Micikevicius et al. 2018, arXiv:1710.03740)."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import paddle
from paddle import Tensor, nn, optimizer


class Precision:
    """`O1`: float16 where it is safe; `O2`: nearly everywhere, with weights in float32 beside those in float16.

    On the CPU, where Paddle computes in float32 all the same, neither does anything. Accelerators: not run here.
    """

    def __init__(self, level: Literal["O1", "O2"] | None, model: nn.Layer, optim: optimizer.Optimizer) -> None:
        self.ignored = level is not None and paddle.device.get_device() == "cpu"
        self._level = None if self.ignored else level
        self.scaler = paddle.amp.GradScaler() if self._level else None
        if self._level == "O2":
            paddle.amp.decorate(models=model, optimizers=optim, level="O2", master_weight=True)

    def state(self) -> dict[str, Any]:
        """What a resumed run needs: the scale of the loss and its history."""
        return dict(self.scaler.state_dict()) if self.scaler else {}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        if self.scaler and state:
            self.scaler.load_state_dict(state)

    def cast(self) -> AbstractContextManager[Any]:
        """The context for the forward pass."""
        context: AbstractContextManager[Any] = paddle.amp.auto_cast(level=self._level) if self._level else nullcontext()
        return context

    def backward(self, loss: Tensor) -> None:
        """Add to the gradients, enlarged so that float16 can hold them."""
        (self.scaler.scale(loss) if self.scaler else loss).backward()

    def unscale(self, optim: optimizer.Optimizer) -> None:
        """Give the gradients their size again."""
        if self.scaler:
            self.scaler.unscale_(optim)

    def step(self, optim: optimizer.Optimizer) -> None:
        """The optimizer's step; left out where float16 could not hold the gradients."""
        if self.scaler:
            self.scaler.step(optim)
            self.scaler.update()
        else:
            optim.step()
