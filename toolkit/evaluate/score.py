"""Detections, wherever they come from, held against a dataset: table on the screen, figures in a file."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from toolkit.data.coco import Split, dataset_of, find_dataset
from toolkit.data.detections import Detections
from toolkit.errors import UserError
from toolkit.evaluate.ap import Metrics
from toolkit.evaluate.ap import evaluate as measure
from toolkit.recipe import Evaluate
from toolkit.run import Run
from toolkit.weights.fetch import sha256_of


def score(
    found: Iterable[tuple[int, Detections]],
    split: Split,
    *,
    name: str,
    about: Mapping[str, Any],
    folder: Path,
    limit: int,
    run: Run | None = None,
) -> Metrics:
    """Measure a stream of (picture id, detections) on `split`; print the figures and write `evaluate_result.json`.

    Args:
        name: of what is measured, for the heading; `about`: what the file says of it.
        folder: where the file goes.
        limit: how many detections of a picture enter AP.
        run: that the model is of; it is said if these are other pictures than it was evaluated on in training.
    """
    start = time.perf_counter()
    shown = track(
        found,
        description="evaluating",
        total=len(split.pictures),
        console=Console(stderr=True),
        transient=True,
    )
    metrics = measure(shown, split, max_detections=limit)
    seconds = time.perf_counter() - start
    folder.mkdir(parents=True, exist_ok=True)
    annotations = sha256_of(split.json_path)
    where = {"data": str(split.json_path), "annotations_sha256": annotations}
    result = {**about, **where, "seconds": round(seconds, 1), **metrics.as_dict()}
    file = folder / "evaluate_result.json"
    file.write_text(json.dumps(result, indent=2, ensure_ascii=False), encoding="utf-8")
    console = Console()
    if run and run.origin().get("data", {}).get("val annotations", annotations) != annotations:
        console.print(
            f"note: {split.json_path} is not the file that {run.path.name} was evaluated on in training, or has "
            "changed since: its figures do not compare with these",
            soft_wrap=True,
            highlight=False,
            markup=False,
        )
    console.print(f"{name} on {metrics.pictures} pictures, per cent", soft_wrap=True, highlight=False, markup=False)
    console.print(table_of(metrics))
    console.print(
        f"{metrics.detections} detections in {seconds:.1f} s; written to {file}", soft_wrap=True, highlight=False
    )
    return metrics


def ground_truth(data: Path | None, run: Path | None) -> tuple[Split, int]:
    """The validation pictures of `data`, or of the dataset of `run` (by default the newest), for what is no run itself;
    and how many detections of a picture enter AP, as that run has it.

    Raises UserError.
    """
    if data is not None:
        return find_dataset(data).val, Evaluate().max_detections
    try:
        recipe = Run.find(run).recipe()
    except UserError as error:
        raise UserError(f"{error}; or say with --data which dataset to measure on") from None
    return dataset_of(recipe.data).val, recipe.evaluate.max_detections


def require_classes(split: Split, classes: Sequence[str]) -> None:
    """Raises UserError if the model's `classes` are not those of the data, in their order."""
    if list(split.classes) != list(classes):
        raise UserError(
            f"{split.json_path}: its classes ({', '.join(split.classes)}) are not the model's "
            f"({', '.join(classes)}), in name or in order"
        )


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
