"""A CPU that stands in for an accelerator with mixed precision.

Paddle's own code casts layers, names master weights and keeps the state of optimizers. What only an accelerator has is
made up: kernels that take weights in few bits inside of `auto_cast` (here they compute in float32), and optimizer
kernels that update a float32 master weight and round it. Outside of `auto_cast` a layer with such weights fails, as it
does on an accelerator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import paddle
import pytest
from paddle import Tensor, nn
from paddle.amp.auto_cast import amp_initialize

from toolkit.nn.low_precision import LOW
from toolkit.train.precision import Precision


class StandIn:
    """What was asked of it."""

    def __init__(self) -> None:
        self.casts: list[tuple[str, str]] = []
        """Level and dtype of each `auto_cast`."""
        self.active = False


@pytest.fixture
def accelerator(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    stand_in = StandIn()

    @contextmanager
    def auto_cast(*, level: str, dtype: str) -> Iterator[None]:
        stand_in.casts.append((level, dtype))
        stand_in.active = True
        try:
            yield
        finally:
            stand_in.active = False

    def decorate(
        *, models: nn.Layer, optimizers: Any, level: str, dtype: str, master_weight: bool, excluded_layers: list[Any]
    ) -> None:
        assert level == "O2"
        amp_initialize([models], dtype, excluded_layers)
        optimizers._multi_precision = master_weight

    plain = nn.Layer.__getattr__

    def attribute(layer: nn.Layer, name: str) -> Any:
        value = plain(layer, name)
        low = stand_in.active and isinstance(value, Tensor) and value.dtype in LOW
        return value.astype("float32") if low else value

    monkeypatch.setattr(paddle.device, "get_device", lambda: "npu:0")
    monkeypatch.setattr(paddle.amp, "auto_cast", auto_cast)
    monkeypatch.setattr(paddle.amp, "decorate", decorate)
    monkeypatch.setattr(nn.Layer, "__getattr__", attribute)
    monkeypatch.setattr(Precision, "_require_support", lambda self: None)
    # Where the kernels' arguments have the master weight, and whether to use it.
    for name, (master, multi) in {"adamw_": (8, 18), "momentum_": (4, 9)}.items():
        monkeypatch.setattr(paddle._C_ops, name, _updating(getattr(paddle._C_ops, name), master=master, multi=multi))
    return stand_in


def _updating(kernel: Callable[..., Any], *, master: int, multi: int) -> Callable[..., Any]:
    def update(*arguments: Any) -> Any:
        changed = list(arguments)
        parameter, weight = changed[0], changed[master]
        if weight is None:
            assert parameter.dtype == paddle.float32
            return kernel(*arguments)
        assert weight.dtype == paddle.float32
        assert changed[multi] is True
        changed[:2] = weight, changed[1].astype("float32")
        changed[master], changed[multi] = None, False
        result = kernel(*changed)
        parameter.set_value(weight.astype(parameter.dtype))
        return result

    return update
