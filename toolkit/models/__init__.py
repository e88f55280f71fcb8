"""One file per family of models; `build_model` finds the right one."""

from __future__ import annotations

import difflib
import inspect
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

import toolkit.device  # noqa: F401  # so that Paddle is imported there first
from toolkit.errors import UserError
from toolkit.recipe import Recipe
from toolkit.zoo import find_model

if TYPE_CHECKING:
    from paddle import nn


def build_model(name: str, num_classes: int, input_size: tuple[int, int] | None = None, **overrides: Any) -> nn.Layer:
    """Build a model with fresh weights.

    Args:
        name: one of `toolkit.zoo.MODELS`.
        num_classes: classes of the data, background not counted.
        input_size: height and width, in pixels, that anchors are computed for once; other sizes work as well.
        overrides: arguments of the family's `build`, which makes small variants of the model (width, depth, queries).

    The model in train mode maps a batch to its losses, in eval mode to boxes and full-size masks; its method
    `network` is the part that exports. See the family's file.

    Raises UserError for an unknown name or override.
    """
    module = import_module(f"toolkit.models.{find_model(name).family}")
    known = _options_of(module)
    for option in overrides:
        if option not in known:
            close = difflib.get_close_matches(option, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"possible are {', '.join(known)}"
            raise UserError(f"model {name}: unknown option {option}; {hint}")
    model: nn.Layer = module.build(name, num_classes=num_classes, input_size=input_size, **overrides)
    return model


def _options_of(family: ModuleType) -> list[str]:
    """What the family's `build` takes beyond name, class count and size; `**overrides` are fields of its `Options`."""
    known = inspect.signature(family.build).parameters
    if "overrides" in known:
        known = inspect.signature(family.Options).parameters
    return [option for option in known if option not in ("name", "num_classes", "input_size")]


def model_of(recipe: Recipe) -> nn.Layer:
    """The model that a resolved recipe describes, with fresh weights.

    From scratch, the parts that fine-tuning freezes (stem, norms of the backbone) train as well: frozen at random
    values they would only do harm.
    """
    options = dict(recipe.model.options)
    if recipe.train.pretrained == "none":
        options.setdefault("freeze", False)
    size = None if recipe.data.keep_ratio else recipe.data.input_size
    return build_model(recipe.model.name, len(recipe.classes), size, **options)
