"""The command `seg-tune`: one file per command, each of whose bodies is one library call."""

from __future__ import annotations

import sys
import warnings

import typer

from toolkit import __version__
from toolkit.cli.benchmark import benchmark
from toolkit.cli.compare import compare
from toolkit.cli.convert import convert
from toolkit.cli.doctor import doctor
from toolkit.cli.eval import evaluate
from toolkit.cli.export import export
from toolkit.cli.import_ import import_
from toolkit.cli.inspect import inspect
from toolkit.cli.lr_find import lr_find
from toolkit.cli.merge import merge
from toolkit.cli.models import models
from toolkit.cli.pipeline import app as pipeline
from toolkit.cli.predict import predict
from toolkit.cli.quickstart import quickstart
from toolkit.cli.review import review
from toolkit.cli.runs import app as runs
from toolkit.cli.sample import sample
from toolkit.cli.serve import serve
from toolkit.cli.split import split
from toolkit.cli.train import train
from toolkit.cli.validate import validate
from toolkit.cli.weights import app as weights
from toolkit.errors import UserError
from toolkit.extras import missing_module
from toolkit.places import find_temporary_folder, refusal

app = typer.Typer(
    name="seg-tune",
    help="Fine-tune instance segmentation models on Paddle and put them into service.",
    no_args_is_help=True,
    add_completion=False,
    # Half of the time of --help otherwise goes into its frames.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _version(version: bool = typer.Option(False, "--version", help="Print the version and leave.")) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


app.command()(quickstart)
app.command()(doctor)
app.command()(models)
app.command()(validate)
app.command()(convert)
app.command()(split)
app.command()(merge)
app.command()(sample)
app.command()(inspect)
app.command("import")(import_)
app.command()(train)
app.command("lr-find")(lr_find)
app.add_typer(runs, name="runs")
app.command("eval")(evaluate)
app.command()(review)
app.command()(compare)
app.command()(export)
app.command()(predict)
app.add_typer(pipeline, name="pipeline")
app.command()(benchmark)
app.command()(serve)
app.add_typer(weights, name="weights")


def main() -> None:
    """Run the command line; what a person can mend ends in one line and exit code 2."""
    # Notes to developers of Paddle: no ccache found, and the like.
    warnings.filterwarnings("ignore", module=r"paddle\.")
    find_temporary_folder()
    try:
        app()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except (OSError, ImportError) as error:
        reason = missing_module(error) if isinstance(error, ImportError) else refusal(error)
        if reason is None:
            raise
        print(f"error: {reason}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
