"""Everything that a run needs to go on, in one file that is replaced in one step."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from paddle import nn, optimizer

from toolkit.data.coco import Dataset
from toolkit.errors import UserError
from toolkit.train.ema import MovingAverage
from toolkit.train.precision import Precision
from toolkit.weights.fetch import sha256_of
from toolkit.weights.load import read_checkpoint, write_atomically

FORMAT = 3


@dataclass
class Progress:
    """How far a run has come."""

    epoch: int = 0
    """Epochs completed, evaluation included."""
    step: int = 0
    """Steps completed; what goes beyond `epoch` full epochs is the place inside the next."""
    best_epoch: int = 0
    best: dict[str, Any] | None = None
    """Metrics of the best epoch."""
    stale: int = 0
    """Evaluations since the best one."""


@dataclass
class State:
    """All that changes while a run goes on.

    There are no random states among it: a step's random numbers depend on its number, and a picture's augmentation on
    seed, epoch and index.
    """

    model: nn.Layer
    optim: optimizer.Optimizer
    ema: MovingAverage | None
    precision: Precision
    progress: Progress
    data: dict[str, Any]
    """Identifies the dataset."""
    _restored: dict[str, dict[str, Any]] = field(default_factory=dict)
    """State of the optimizer that it has not taken over: Paddle's does so at its first step only."""

    def save(self, path: Path) -> None:
        """Write a checkpoint; a file that is there already stays whole until the new one is complete.

        Raises UserError if it cannot be written, or if the weights are no longer numbers.
        """
        tree = {
            "format": FORMAT,
            "progress": asdict(self.progress),
            "data": self.data,
            "model": self.precision.weights(),
            "optimizer": {
                name: own or self._restored.get(name, {}) for name, own in _by_structure(self.model, self.optim).items()
            },
            "ema": self.ema.state() if self.ema else None,
            "precision": self.precision.state(),
        }
        for name, value in tree["model"].items():  # type: ignore[attr-defined]
            if not np.isfinite(value).all():
                raise UserError(f"{path}: not saved: {name} is no longer finite; start anew with a lower --lr")
        write_atomically(path, tree)

    def restore(self, path: Path) -> None:
        """Take over the state in a checkpoint.

        Raises UserError, with nothing changed, if it is damaged or of another format, model or dataset.
        """
        tree = read_checkpoint(path)
        if tree.get("format") != FORMAT:
            raise UserError(f"{path}: checkpoint of format {tree.get('format')}; this version reads format {FORMAT}")
        for key, value in self.data.items():
            if tree["data"].get(key) != value:
                raise UserError(f"{path}: the run was started on other data ({key} differs); resume with its own data")
        own = self.model.state_dict()
        if {k: list(v.shape) for k, v in own.items()} != {k: list(v.shape) for k, v in tree["model"].items()}:
            raise UserError(f"{path}: checkpoint of another model; its recipe.yaml was changed")
        # Version 0.1 kept master weights beside those in float16.
        self.precision.load_weights({**tree["model"], **tree.get("master_weights", {})})
        self._restored = tree["optimizer"]
        _load_by_structure(self.model, self.optim, self._restored)
        self.precision.load(tree["precision"])
        if self.ema and tree["ema"]:
            self.ema.load(tree["ema"])
        for entry in fields(Progress):
            setattr(self.progress, entry.name, tree["progress"][entry.name])


def identity(dataset: Dataset) -> dict[str, Any]:
    """What a resumed run checks its data by: classes, counts, and the content of the annotation files."""
    return {
        "classes": list(dataset.train.classes),
        "pictures": len(dataset.train.pictures),
        "annotations": sum(len(picture.annotations) for picture in dataset.train.pictures),
        "train annotations": sha256_of(dataset.train.json_path),
        "val annotations": sha256_of(dataset.val.json_path),
    }


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
