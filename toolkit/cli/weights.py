"""`seg-tune weights`: list, fetch, verify, bundle and install."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Official weights in the cache, and models in one file.", no_args_is_help=True)


@app.command("list")
def list_() -> None:
    """The official weights of each model: how large, and whether they are in the cache."""
    from rich.console import Console

    from toolkit.places import cache_folders
    from toolkit.weights.stock import list_weights

    console = Console(highlight=False, soft_wrap=True)
    console.print(list_weights())
    console.print(f"the cache is {' and '.join(map(str, cache_folders()))} (SEG_TUNE_CACHE)", style="dim")


@app.command()
def fetch(
    models: Annotated[list[str], typer.Argument(help="Names of models, or all.", metavar="MODEL...")],
    to: Annotated[
        Path | None, typer.Option(help="A folder instead of the cache, to carry to a machine without network.")
    ] = None,
) -> None:
    """Download official weights ahead; what is here already is not asked for again."""
    from toolkit.weights.stock import fetch_weights

    for path in fetch_weights(models, to=to):
        typer.echo(path)


@app.command()
def verify(
    places: Annotated[
        list[Path] | None, typer.Argument(help="Weights files, or folders of them; by default the cache.")
    ] = None,
) -> None:
    """Hold weights against the SHA-256 noted when they came; exit code 2 if one differs."""
    from toolkit.errors import UserError
    from toolkit.weights.stock import verify_weights

    found = verify_weights(places or [])
    for path, verdict in found.items():
        typer.echo(f"{path}: {verdict}")
    wrong = sum(verdict in ("changed", "missing") for verdict in found.values())
    if wrong:
        raise UserError(f"{wrong} of {len(found)} files are not what came; delete them and fetch them again")
    typer.echo(f"{len(found)} files looked at")


@app.command()
def bundle(
    source: Annotated[
        Path | None,
        typer.Argument(help="A run, an exported folder or a pipeline config; by default the newest run's export."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file to write; by default MODEL.tar here.")
    ] = None,
    licence: Annotated[
        list[Path] | None, typer.Option(help="A licence to pack too, as that of the data; repeatable.")
    ] = None,
) -> None:
    """Pack an exported model, its config, card, certificate, licences and hashes into one file."""
    from toolkit.pipeline.bundle import write_bundle
    from toolkit.weights.fetch import sha256_of

    file, missing = write_bundle(source, output, licences=licence or [])
    for name in missing:
        typer.echo(f"note: the exported model has no {name}; `seg-tune export` writes one")
    typer.echo(f"{sha256_of(file)}  {file}")


@app.command()
def install(
    file: Annotated[Path, typer.Argument(help="What `seg-tune weights bundle` wrote.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="New folder; by default one with the model's name here.")
    ] = None,
) -> None:
    """Unpack a bundle, check it against its hashes, and write a pipeline config for where it lies."""
    from toolkit.pipeline.bundle import install_bundle

    config = install_bundle(file, output)
    typer.echo(f"installed; try: seg-tune predict --pipeline {config} --input PICTURE")
