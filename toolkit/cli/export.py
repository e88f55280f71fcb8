"""`seg-tune export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export(
    run: Annotated[Path | None, typer.Option(help="Run whose best model is exported; the newest by default.")] = None,
    weights: Annotated[Path | None, typer.Option(help="A weights file instead of a run's best.")] = None,
    model: Annotated[str | None, typer.Option(help="The model of --weights that lie outside a run.")] = None,
    data: Annotated[Path | None, typer.Option(help="Another dataset to check the export on.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder to write; by default `inference` in the run or beside the weights.")
    ] = None,
    pictures: Annotated[
        int, typer.Option(min=1, help="On how many validation pictures the export is checked; they are put into it.")
    ] = 16,
    int8: Annotated[
        bool, typer.Option("--int8", help="Write an 8-bit graph too, by quantisation on validation pictures.")
    ] = False,
    to_pipeline_config: Annotated[
        bool,
        typer.Option("--to-pipeline-config", help="Write a pipeline config too, to PATH or beside the folder."),
    ] = False,
    config: Annotated[Path | None, typer.Argument(metavar="[PATH]", help="Where the pipeline config goes.")] = None,
) -> None:
    """Export a trained model for this package, PaddleX and ONNX Runtime, and check it against the trained one."""
    from toolkit.export.run import export_trained

    export_trained(
        run=run,
        weights=weights,
        model=model,
        data=data,
        output=output,
        to_pipeline_config=to_pipeline_config,
        config=config,
        pictures=pictures,
        int8=int8,
    )
