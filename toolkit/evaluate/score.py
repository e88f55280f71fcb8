"""Detections, wherever they come from, held against a dataset: table on the screen, figures in a file."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from toolkit.data.coco import Split, dataset_of, find_dataset
from toolkit.data.detections import Detections
from toolkit.data.findings.table import Lang
from toolkit.errors import UserError
from toolkit.evaluate.ap import Evaluator, Metrics, summarize
from toolkit.evaluate.confidence import best_thresholds
from toolkit.evaluate.explain import explain
from toolkit.evaluate.gallery import Gallery
from toolkit.evaluate.report import write_report
from toolkit.evaluate.tables import FILE, Stored, Tables, save_tables
from toolkit.places import require_writable, writing
from toolkit.recipe import Evaluate
from toolkit.run import Run
from toolkit.weights.fetch import sha256_of


@dataclass(frozen=True)
class Extras:
    """What may be asked for beside the figures."""

    report: Path | None = None
    """Folder of a report."""
    lang: Lang = "en"
    precision: float | None = None
    """What the threshold of each class is to give; by default the best F1."""
    set_thresholds: Callable[[Mapping[str, float | None]], object] | None = None
    """Gets the best threshold of each class, None where nothing right was found of it."""

    def check(self) -> None:
        """Raises UserError for what cannot be done."""
        if self.report and self.report.exists() and not self.report.is_dir():
            raise UserError(f"{self.report}: is a file; a report is a folder, choose another --report")
        if self.report:
            require_writable(self.report, advice="choose another --report")
        if self.precision is not None and not (self.report or self.set_thresholds):
            raise UserError("--precision: says how thresholds are chosen, and goes with --report or --set-thresholds")


NOTHING = Extras()


def score(
    found: Iterable[tuple[int, Detections]],
    split: Split,
    *,
    name: str,
    about: Mapping[str, Any],
    folder: Path,
    limit: int,
    run: Run | None = None,
    threshold: float = 0.5,
    extras: Extras = NOTHING,
) -> Metrics:
    """Measure a stream of (picture id, detections) on `split`; print the figures and write `evaluate_result.json`,
    and, for comparisons, `evaluate_tables.npz`.

    Args:
        name: of what is measured, for the heading; `about`: what the file says of it.
        folder: where the files go.
        limit: how many detections of a picture enter AP.
        run: that the model is of; it is said if these are other pictures than it was evaluated on in training.
        threshold: least score of a detection that the report shows.
    """
    extras.check()
    require_writable(folder)
    start = time.perf_counter()
    gallery = Gallery(classes=len(split.classes), threshold=threshold) if extras.report else None
    tables = _collect(found, split, gallery, limit=limit)
    metrics = summarize(tables, split.classes, max_detections=limit)
    seconds = time.perf_counter() - start
    annotations = sha256_of(split.json_path)
    where = {"data": str(split.json_path), "annotations_sha256": annotations}
    result = {**about, **where, "seconds": round(seconds, 1), **metrics.as_dict()}
    file = folder / "evaluate_result.json"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(result, indent=2, ensure_ascii=False), encoding="utf-8")
    save_tables(Stored(tables, list(split.classes), limit), folder / FILE)
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
    if extras.report and gallery:
        figures = explain(tables, split, limit=limit, threshold=threshold, precision=extras.precision)
        page = write_report(extras.report, figures, gallery.worst(), title=name, split=split, lang=extras.lang)
        console.print(f"report written to {page}", soft_wrap=True, highlight=False)
    if extras.set_thresholds:
        best = best_thresholds(tables, split.classes, limit=limit, precision=extras.precision)
        extras.set_thresholds({key: best[key].score if key in best else None for key in split.classes})
    return metrics


def _collect(found: Iterable[tuple[int, Detections]], split: Split, gallery: Gallery | None, *, limit: int) -> Tables:
    """The tables of a stream of detections, thorough where there is a gallery, which sees all pictures."""
    evaluator = Evaluator(split, max_detections=limit, thorough=gallery is not None)
    pictures = {picture.id: picture for picture in split.pictures}
    shown = track(
        found,
        description="evaluating",
        total=len(split.pictures),
        console=Console(stderr=True),
        transient=True,
    )
    for number, detections in shown:
        tables = evaluator.add(number, detections)
        if gallery:
            gallery.add(pictures[number], detections, tables)
    return evaluator.tables()


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
