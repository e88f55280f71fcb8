"""`seg-tune runs`: list, show, compare and prune."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Look at the runs, compare them, clear what they no longer need.", no_args_is_help=True)

Output = Annotated[Path, typer.Option(help="Folder that the runs lie in.")]


class Sort(str, Enum):
    time = "time"
    ap = "ap"
    size = "size"
    model = "model"


@app.command("list")
def list_(
    output: Output = Path("output"),
    where: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=TEXT", help="Only runs of whose facts (as `runs show` has them) one holds a text."),
    ] = None,
    sort: Annotated[Sort, typer.Option(help="The oldest first, or the best, the largest, or by model.")] = Sort.time,
) -> None:
    """The runs of a folder."""
    from rich.console import Console

    from toolkit.runs import list_runs

    Console().print(list_runs(output, where=where or [], sort=sort.value))


@app.command()
def show(
    run: Annotated[str, typer.Argument(help="Name or path of a run.")] = "latest", output: Output = Path("output")
) -> None:
    """What a run was, and what came of it."""
    from rich.console import Console

    from toolkit.runs import run_named, show_run

    Console().print(show_run(run_named(run, output)))


@app.command()
def compare(
    runs: Annotated[list[str], typer.Argument(help="Names or paths of runs.")], output: Output = Path("output")
) -> None:
    """Results of runs side by side, and the settings in which they differ."""
    from rich.console import Console

    from toolkit.runs import compare_runs, run_named

    Console().print(compare_runs([run_named(run, output) for run in runs]))


@app.command()
def prune(
    output: Output = Path("output"),
    yes: Annotated[bool, typer.Option("--yes", help="Delete; without it the files are only listed.")] = False,
) -> None:
    """Delete the checkpoints of runs that have ended; best weights, figures and logs stay."""
    from toolkit.runs import prune_runs

    gone = prune_runs(output, really=yes)
    for path, size in gone:
        typer.echo(f"{path}  {size / 1e6:.1f} MB")
    done = "deleted" if yes else "would be deleted with --yes"
    typer.echo(f"{len(gone)} files, {sum(size for _, size in gone) / 1e6:.1f} MB: {done}")
