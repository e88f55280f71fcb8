"""`seg-tune benchmark`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def benchmark(
    pipeline: Annotated[
        str,
        typer.Option(help="Pipeline config, folder of an exported model, or the newest run's exported model."),
    ] = "instance_segmentation",
    input: Annotated[
        str | None, typer.Option(help="Picture, folder of pictures, or URL of a picture; else the bundled sample.")
    ] = None,
    engine: Annotated[
        list[str] | None, typer.Option(help="One to measure; may be given several times. Else all that run here.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, gpu:0, npu:0, xpu:0 or mlu:0; else the config's, else cpu.")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Least score; else the config's, else the model's.")
    ] = None,
    pictures: Annotated[int, typer.Option(min=1, help="How many of the input are taken, its first ones.")] = 8,
    repetitions: Annotated[int, typer.Option(min=1, help="Of each picture, after one that does not count.")] = 5,
    json: Annotated[Path | None, typer.Option(help="File for the figures.")] = None,
) -> None:
    """Measure the stages from a file to its masks, engine by engine: read, prepare, network, masks, save."""
    from toolkit.pipeline.benchmark import benchmark as run

    run(
        pipeline,
        input=input,
        engines=engine or (),
        device=device,
        threshold=threshold,
        pictures=pictures,
        repetitions=repetitions,
        json_file=json,
    )
