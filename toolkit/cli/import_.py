"""`seg-tune import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def import_(
    config: Annotated[Path, typer.Argument(help="A YAML file of PaddleDetection or PaddleX.", metavar="CONFIG.yml")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The recipe to write; by default CONFIG.recipe.yaml here.")
    ] = None,
    devices: Annotated[
        int | None,
        typer.Option(
            min=1, help="For how many devices its learning rate is; by default as PaddleX or PaddleDetection has it."
        ),
    ] = None,
) -> None:
    """Turn a config of PaddleDetection or PaddleX into a recipe, and list what has no counterpart."""
    from toolkit.migrate.recipe import import_config

    target = output or Path(f"{config.stem}.recipe.yaml")
    imported = import_config(config, target, devices=devices)
    for line in imported.lost:
        typer.echo(f"no counterpart: {line}")
    train = imported.recipe.train
    typer.echo(
        f"{imported.recipe.model.name}: {train.epochs} epochs, {train.batch_size} pictures a step; the rate {train.lr} "
        f"is for {train.lr_batch_size} ({imported.devices} devices) and scaled to the batch in use"
    )
    typer.echo(f"written to {target}; try: seg-tune train --recipe {target} --data FOLDER")
