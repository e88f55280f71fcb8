"""`seg-tune inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toolkit.cli.train import Settings


def inspect(
    data: Annotated[Path, typer.Argument(help="Dataset of any format that `convert` reads.")],
    recipe: Annotated[
        str | None,
        typer.Option(metavar="MODEL|FILE", help="Show beside each picture what training with this makes of it."),
    ] = None,
    settings: Settings = None,
    count: Annotated[int, typer.Option(min=1, help="Pictures to draw.")] = 8,
    part: Annotated[str | None, typer.Option(help="train, val or test; the first there is by default.")] = None,
    seed: Annotated[int, typer.Option(help="Of the choice of pictures, and of the augmentation.")] = 0,
    output: Annotated[Path, typer.Option(help="New folder for the drawn pictures.")] = Path("inspect"),
) -> None:
    """Draw pictures of a dataset with their masks, before and after a recipe's augmentation."""
    from toolkit.data.inspect import inspect_dataset

    inspect_dataset(data, output, recipe=recipe, settings=settings or [], count=count, part=part, seed=seed)
