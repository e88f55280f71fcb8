"""Evaluation of a trained model on the validation pictures: table on the screen, figures in a file."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from toolkit.data.coco import dataset_of, find_dataset
from toolkit.data.loader import eval_batches
from toolkit.device import set_device
from toolkit.errors import UserError
from toolkit.evaluate.ap import Metrics
from toolkit.evaluate.ap import evaluate as measure
from toolkit.evaluate.detect import detect
from toolkit.recipe import parse_tiling
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
    if list(dataset.val.classes) != recipe.classes:
        raise UserError(
            f"{dataset.val.json_path}: its classes ({', '.join(dataset.val.classes)}) are not the model's "
            f"({', '.join(recipe.classes)}), in name or in order"
        )
    start = time.perf_counter()
    batches = track(
        eval_batches(dataset.val, recipe), description="evaluating", console=Console(stderr=True), transient=True
    )
    limit = recipe.evaluate.max_detections
    found = detect(trained.model, batches, limit=limit, tiling=recipe.tiling)
    metrics = measure(found, dataset.val, max_detections=limit)
    seconds = time.perf_counter() - start

    folder = output or (trained.weights.parents[1] if trained.weights.parent.name == "best_model" else Path())
    folder.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {
        "model": recipe.model.name,
        "weights": str(trained.weights),
        "data": str(dataset.val.json_path),
        "seconds": round(seconds, 1),
        **metrics.as_dict(),
    }
    file = folder / "evaluate_result.json"
    file.write_text(json.dumps(result, indent=2, ensure_ascii=False), encoding="utf-8")
    console = Console()
    console.print(f"{recipe.model.name} on {metrics.pictures} pictures, per cent")
    console.print(table_of(metrics))
    console.print(
        f"{metrics.detections} detections in {seconds:.1f} s; written to {file}", soft_wrap=True, highlight=False
    )
    return metrics


def table_of(metrics: Metrics) -> Table:
    """The headline figures and the AP of each class, in per cent."""
    table = Table()
    for heading, justify in (("", "left"), ("mask", "right"), ("box", "right")):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    names = {"AP": "AP", "AP50": "AP50", "AP75": "AP75", "APs": "AP small", "APm": "AP medium", "APl": "AP large"}
    for key, name in names.items():
        table.add_row(name, percent(metrics.mask[key]), percent(metrics.box[key]))
    table.add_row("AR", percent(metrics.mask["AR100"]), percent(metrics.box["AR100"]))
    table.add_section()
    for name, ap in metrics.mask_by_class.items():
        table.add_row(name, percent(ap), percent(metrics.box_by_class[name]))
    return table


def percent(value: float | None) -> str:
    return "n/a" if value is None else f"{100 * value:.1f}"
