"""A trained model with all that travels with its weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from paddle import nn

from toolkit.errors import UserError
from toolkit.models import model_of
from toolkit.recipe import Recipe, load_recipe
from toolkit.run import Run, recipe_beside
from toolkit.weights.fetch import weights_file
from toolkit.weights.load import load_weights, read_weights


@dataclass(frozen=True)
class Trained:
    """A model in eval mode, the recipe it was trained by (classes and preprocessing in it) and its weights file."""

    model: nn.Layer
    recipe: Recipe
    weights: Path


def load_trained(
    *,
    run: Path | None = None,
    weights: Path | None = None,
    model: str | None = None,
    classes: Sequence[str] = (),
) -> Trained:
    """The best model of a run (of the newest where nothing is named), or the one in a weights file.

    A weights file outside a run knows neither its model nor its classes; then `model` and `classes` say them.

    Raises UserError where there is no such run or file, or where the weights are not of that model.
    """
    if weights is None:
        found = Run.find(run)
        weights, recipe = found.best_weights, found.recipe()
        if not weights.is_file():
            raise UserError(f"{weights}: missing; the run was stopped before its first evaluation, resume it")
    else:
        file = weights_file(weights)
        if file is None:
            raise UserError(f"{weights}: no such weights file")
        weights = file
        recipe = _recipe_for(weights, run, model)
    if model is not None and model != recipe.model.name:
        raise UserError(f"--model {model}: {weights} is of {recipe.model.name}, as the recipe beside it says")
    if not recipe.classes:
        if not classes:
            raise UserError(f"{weights}: these weights do not say their classes; give the dataset with --data")
        recipe = recipe.model_copy(update={"classes": list(classes)})
    layer = model_of(recipe)
    report = load_weights(layer, read_weights(weights), origin=str(weights))
    if report.missing or report.misshaped:
        raise UserError(f"{weights}: not all of {recipe.model.name} is in it: {report.describe()}")
    layer.eval()
    return Trained(layer, recipe, weights)


def _recipe_for(weights: Path, run: Path | None, model: str | None) -> Recipe:
    beside = run / "recipe.yaml" if run else recipe_beside(weights)
    if beside is not None:
        return load_recipe(beside)
    if model is None:
        raise UserError(f"{weights}: no recipe.yaml beside these weights; say which model they are of with --model")
    return load_recipe(model)
