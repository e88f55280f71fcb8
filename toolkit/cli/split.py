"""`seg-tune split`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def split(
    source: Annotated[Path, typer.Argument(help="Dataset of any format that `convert` reads.", metavar="IN")],
    out: Annotated[Path, typer.Argument(help="New folder for all that is written.")],
    val: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Share of the pictures to evaluate on; 0.2 by default.")
    ] = None,
    test: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Share of the pictures to keep apart; none by default.")
    ] = None,
    folds: Annotated[int | None, typer.Option(min=2, help="Write that many folds instead.")] = None,
    group: Annotated[
        str | None,
        typer.Option(
            metavar="REGEX", help="Pictures in whose file names it matches the same stay on one side: '^(.*?)_'."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="The same one gives the same division.")] = 0,
    link: Annotated[bool, typer.Option("--link", help="Hard-link the pictures instead of copying them.")] = False,
) -> None:
    """Divide a dataset into train and val (and test), or into folds, with every class in its share on each side."""
    from toolkit.data.prepare import split_dataset

    split_dataset(source, out, val=val, test=test, fold_count=folds, group=group, seed=seed, link=link)
