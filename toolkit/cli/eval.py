"""`seg-tune eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toolkit.cli.predict import Tiles


def evaluate(
    run: Annotated[Path | None, typer.Option(help="Run whose best model is measured; the newest by default.")] = None,
    weights: Annotated[Path | None, typer.Option(help="A weights file instead of a run's best.")] = None,
    model: Annotated[str | None, typer.Option(help="The model of --weights that lie outside a run.")] = None,
    data: Annotated[Path | None, typer.Option(help="Another dataset; its validation pictures are used.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Pictures a step.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, gpu:0, npu:0, xpu:0 or mlu:0.")] = "auto",
    output: Annotated[Path | None, typer.Option(help="Where evaluate_result.json goes; the run by default.")] = None,
    tiling: Tiles = None,
) -> None:
    """Measure mask and box AP, over all and by class."""
    from toolkit.evaluate.run import evaluate_trained

    evaluate_trained(
        run=run,
        weights=weights,
        model=model,
        data=data,
        batch_size=batch_size,
        device=device,
        output=output,
        tiling=tiling,
    )
