"""`seg-tune compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toolkit.cli.runs import Output
from toolkit.cli.validate import Language


def compare(
    runs: Annotated[list[str], typer.Argument(help="Names or paths of runs; the first is what others are held to.")],
    output: Output = Path("output"),
    report: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write a page and compare.json into this folder.")
    ] = None,
    lang: Annotated[Language | None, typer.Option(help="Language of the page; by default that of LANG.")] = None,
) -> None:
    """Which of the runs is better, on the same pictures: better, worse, or not distinguishable."""
    from toolkit.data.validate import language_of_environment
    from toolkit.evaluate.compare_report import compare_evaluated

    language = lang.value if lang else language_of_environment()
    compare_evaluated(runs, output=output, report=report, lang=language)
