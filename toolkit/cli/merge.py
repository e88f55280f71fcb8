"""`seg-tune merge`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def merge(
    sources: Annotated[list[Path], typer.Argument(help="Two datasets or more, of any format.", metavar="IN...")],
    out: Annotated[Path, typer.Argument(help="New folder for all that is written.")],
    rename: Annotated[
        list[str] | None, typer.Option(metavar="OLD=NEW", help="Give a class another name first; repeatable.")
    ] = None,
    link: Annotated[bool, typer.Option("--link", help="Hard-link the pictures instead of copying them.")] = False,
) -> None:
    """Join datasets: parts of one name, and classes of one name, become one."""
    from toolkit.data.prepare import merge_datasets

    merge_datasets(sources, out, renamed=rename or [], link=link)
