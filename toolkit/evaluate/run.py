"""Evaluation of a trained model on the validation pictures."""

from __future__ import annotations

from pathlib import Path

from toolkit.data.coco import dataset_of, find_dataset
from toolkit.data.loader import eval_batches
from toolkit.device import set_device
from toolkit.evaluate.ap import Metrics
from toolkit.evaluate.detect import detect
from toolkit.evaluate.score import NOTHING, Extras, require_classes, score
from toolkit.recipe import parse_tiling
from toolkit.run import Run
from toolkit.weights.trained import load_trained


def evaluate_trained(
    *,
    run: Path | None = None,
    weights: Path | None = None,
    model: str | None = None,
    data: Path | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    output: Path | None = None,
    tiling: str | None = None,
    extras: Extras = NOTHING,
) -> Metrics:
    """Measure a run's best model, or a weights file, on the validation pictures of its dataset or of `data`.

    `tiling` (YAML of the block, or `off`) stands in for that of the recipe.

    Writes `evaluate_result.json` into `output` (by default into the run's folder, or beside the weights).

    Raises UserError if the model or the data cannot be had, or if their classes differ.
    """
    set_device(device)
    elsewhere = find_dataset(data) if data else None
    trained = load_trained(run=run, weights=weights, model=model, classes=elsewhere.val.classes if elsewhere else ())
    recipe = trained.recipe
    if batch_size:
        recipe = recipe.model_copy(update={"evaluate": recipe.evaluate.model_copy(update={"batch_size": batch_size})})
    if (said := parse_tiling(tiling, origin="--tiling")) is not None:
        recipe = recipe.model_copy(update={"tiling": said or None})
    dataset = elsewhere or dataset_of(recipe.data)
    require_classes(dataset.val, recipe.classes)
    limit = recipe.evaluate.max_detections
    folder = trained.weights.parents[1] if trained.weights.parent.name == "best_model" else None
    return score(
        detect(trained.model, eval_batches(dataset.val, recipe), limit=limit, tiling=recipe.tiling),
        dataset.val,
        name=recipe.model.name,
        about={"model": recipe.model.name, "weights": str(trained.weights)},
        folder=output or folder or Path(),
        limit=limit,
        threshold=recipe.predict.threshold,
        extras=extras,
        run=Run(folder) if folder else None,
    )
