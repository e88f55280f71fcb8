"""`seg-tune sample`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def sample(
    source: Annotated[Path, typer.Argument(help="Dataset of any format that `convert` reads.", metavar="IN")],
    out: Annotated[Path, typer.Argument(help="New folder for all that is written.")],
    count: Annotated[int, typer.Option(min=1, help="Pictures in all; each part gives its share.")] = 100,
    seed: Annotated[int, typer.Option(help="The same one gives the same pictures.")] = 0,
    link: Annotated[bool, typer.Option("--link", help="Hard-link the pictures instead of copying them.")] = False,
) -> None:
    """Take a small subset of a dataset, with its classes about in their proportions."""
    from toolkit.data.prepare import sample_dataset

    sample_dataset(source, out, count=count, seed=seed, link=link)
