"""Everything that a run needs to go on, in one file that is replaced in one step."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from paddle import nn, optimizer

from toolkit.errors import UserError
from toolkit.train.ema import MovingAverage
from toolkit.weights.load import read_checkpoint, write_atomically

FORMAT = 1


@dataclass
class Progress:
    """How far a run has come."""

    epoch: int = 0
    """Epochs completed."""
    step: int = 0
    """Optimizer steps completed."""
    best_epoch: int = 0
    best: dict[str, Any] | None = None
    """Metrics of the best epoch."""


def save(
    path: Path,
    *,
    model: nn.Layer,
    optim: optimizer.Optimizer,
    ema: MovingAverage | None,
    progress: Progress,
    data: dict[str, Any],
) -> None:
    """Write a checkpoint; a file that is there already stays whole until the new one is complete.

    `data` identifies the dataset; `restore` refuses another one.
    """
    state = {
        "format": FORMAT,
        "progress": asdict(progress),
        "data": data,
        "model": {name: value.numpy() for name, value in model.state_dict().items()},
        "optimizer": _by_structure(model, optim),
        "ema": ema.state() if ema else None,
    }
    write_atomically(path, state)


def restore(
    path: Path,
    *,
    model: nn.Layer,
    optim: optimizer.Optimizer,
    ema: MovingAverage | None,
    data: dict[str, Any],
) -> Progress:
    """Put the state of a checkpoint into `model`, `optim` and `ema`.

    Raises UserError if there is none, or if it is of another format, model or dataset.
    """
    if not path.is_file():
        raise UserError(f"{path}: no checkpoint; the run ended before its first epoch did, so start it anew")
    state = read_checkpoint(path)
    if state.get("format") != FORMAT:
        raise UserError(f"{path}: checkpoint of format {state.get('format')}; this version reads format {FORMAT}")
    for key, value in data.items():
        if state["data"].get(key) != value:
            raise UserError(f"{path}: the run was started on other data ({key} differs); resume with the same --data")
    own = model.state_dict()
    if {k: list(v.shape) for k, v in own.items()} != {k: list(v.shape) for k, v in state["model"].items()}:
        raise UserError(f"{path}: checkpoint of another model; its recipe.yaml was changed")
    for name, value in state["model"].items():
        own[name].set_value(value)
    _load_by_structure(model, optim, state["optimizer"])
    if ema and state["ema"]:
        ema.load(state["ema"])
    return Progress(**state["progress"])


# Paddle names optimizer state after a process-wide counter of layers (conv2d_17.w_0_velocity_0), so it is stored under
# the parameter's place in the model instead.


def _by_structure(model: nn.Layer, optim: optimizer.Optimizer) -> dict[str, dict[str, Any]]:
    state = {key: value for key, value in optim.state_dict().items() if hasattr(value, "numpy")}
    return {
        name: {
            key[len(parameter.name) :]: value.numpy()
            for key, value in state.items()
            if key.startswith(f"{parameter.name}_")
        }
        for name, parameter in model.named_parameters()
        if not parameter.stop_gradient
    }


def _load_by_structure(model: nn.Layer, optim: optimizer.Optimizer, state: dict[str, dict[str, Any]]) -> None:
    names = {name: parameter.name for name, parameter in model.named_parameters()}
    optim.set_state_dict({names[name] + key: value for name, values in state.items() for key, value in values.items()})
