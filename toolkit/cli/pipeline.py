"""`seg-tune pipeline`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Pipeline configs.", no_args_is_help=True)


@app.command()
def get(
    name: Annotated[str, typer.Argument(help="Name of the pipeline.")] = "instance_segmentation",
    save_path: Annotated[
        Path, typer.Option("--save-path", "--save_path", help="File that ends in .yaml or .yml, or a folder for it.")
    ] = Path(),
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Replace a file that is there, without asking.")] = False,
) -> None:
    """Write the pipeline config of the newest run's export or, where there is no run, PaddleX's own."""
    from toolkit.pipeline.get import write_pipeline_config

    write_pipeline_config(name, save_path, may_replace=lambda path: yes or _asked(path))


def _asked(path: Path) -> bool:
    try:
        return typer.confirm(f"{path} exists; replace it?")
    except typer.Abort:  # Nobody there to answer.
        return False
