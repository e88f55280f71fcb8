"""`seg-tune eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from toolkit.cli.predict import Tiles
from toolkit.cli.validate import Language


def evaluate(
    run: Annotated[
        Path | None,
        typer.Option(help="Run whose best model, or whose data, is used; the newest by default."),
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="A weights file instead of a run's best.")] = None,
    exported: Annotated[
        Path | None, typer.Option(help="An exported model instead: its folder, or a pipeline config.")
    ] = None,
    predictions: Annotated[
        Path | None, typer.Option(help="What another tool found instead: a COCO results file.")
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="A service instead, as http://localhost:8080 (PaddleX's too).")
    ] = None,
    model: Annotated[str | None, typer.Option(help="The model of --weights that lie outside a run.")] = None,
    engine: Annotated[
        str | None,
        typer.Option(help="What runs an exported model (docs/engines.md); by default the fastest exact one."),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Another dataset; its validation pictures are used.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Pictures a step.")] = None,
    device: Annotated[str | None, typer.Option(help="auto (default), cpu, gpu:0, npu:0, xpu:0 or mlu:0.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="Where evaluate_result.json goes: the run by default, else this folder.")
    ] = None,
    tiling: Tiles = None,
    report: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write a page and report.json that explain the figures into this folder."),
    ] = None,
    set_thresholds: Annotated[
        Path | None,
        typer.Option(metavar="CONFIG", help="Write the best threshold of each class into this pipeline config."),
    ] = None,
    precision: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, help="Thresholds that give this precision; by default those of the best F1."),
    ] = None,
    lang: Annotated[Language | None, typer.Option(help="Language of the report; by default that of LANG.")] = None,
) -> None:
    """Measure mask and box AP, over all and by class: of a trained or exported model, a file, or a service."""
    options = {
        "--weights": weights,
        "--exported": exported,
        "--predictions": predictions,
        "--url": url,
        "--model": model,
        "--engine": engine,
        "--batch-size": batch_size,
        "--device": device,
        "--tiling": tiling,
    }
    from toolkit.data.validate import language_of_environment
    from toolkit.evaluate.score import Extras
    from toolkit.pipeline.thresholds import threshold_writer

    extras = Extras(
        report=report,
        lang=lang.value if lang else language_of_environment(),
        precision=precision,
        set_thresholds=threshold_writer(set_thresholds) if set_thresholds else None,
    )
    where: dict[str, Any] = {"data": data, "run": run, "output": output, "extras": extras}
    match _source({name for name, value in options.items() if value is not None}):
        case "--predictions":
            from toolkit.evaluate.predictions import evaluate_predictions

            assert predictions is not None
            evaluate_predictions(predictions, **where)
        case "--url":
            from toolkit.serve.client import evaluate_served

            assert url is not None
            evaluate_served(url, **where)
        case "--exported":
            from toolkit.pipeline.measure import evaluate_exported

            assert exported is not None
            evaluate_exported(exported, engine=engine, device=device, tiling=tiling, batch_size=batch_size, **where)
        case _:
            from toolkit.evaluate.run import evaluate_trained

            evaluate_trained(
                weights=weights, model=model, batch_size=batch_size, device=device or "auto", tiling=tiling, **where
            )


_TAKES = {
    "--weights": {"--model", "--batch-size", "--device", "--tiling"},
    "--exported": {"--engine", "--batch-size", "--device", "--tiling"},
    "--predictions": set[str](),
    "--url": set[str](),
}
"""What is measured, and what else may be said of it. A run, which needs no option, takes what weights take."""


def _source(given: set[str]) -> str:
    """Which of `_TAKES` is measured.

    Raises UserError for several, and for options that have no meaning there.
    """
    from toolkit.errors import UserError

    chosen = [name for name in _TAKES if name in given]
    if len(chosen) > 1:
        raise UserError(f"{' and '.join(chosen)}: each says what is measured; give one of them")
    source = chosen[0] if chosen else "--weights"
    for name in sorted(given - set(chosen) - _TAKES[source]):
        wanted = " or ".join(key for key, takes in _TAKES.items() if name in takes)
        raise UserError(f"{name}: has no meaning {f'with {source}' if chosen else 'here'}; it goes with {wanted}")
    return source
