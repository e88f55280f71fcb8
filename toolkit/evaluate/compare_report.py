"""A comparison of models on the screen, as a page without external resources, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from toolkit.data.findings.table import Lang
from toolkit.data.page import render, write_page
from toolkit.errors import UserError
from toolkit.evaluate import plots
from toolkit.evaluate.bootstrap import Interval
from toolkit.evaluate.compare import Compared, Comparison, Difference, compare
from toolkit.evaluate.score import percent
from toolkit.evaluate.tables import FILE
from toolkit.evaluate.words import WORDS
from toolkit.runs import run_named


def compare_evaluated(
    runs: Sequence[str], *, output: Path = Path("output"), report: Path | None = None, lang: Lang = "en"
) -> Comparison:
    """Hold runs against the first of them, print the result and, with `report`, write a page and JSON into that folder.

    Args:
        runs: names in `output`, or paths of runs or of what `seg-tune eval --output` wrote.

    Raises UserError for a run that is not evaluated, or that was on other pictures or classes.
    """
    if len(runs) < 2:
        raise UserError("compare: takes two runs or more; `seg-tune runs list` lists them")
    folders = [
        (Path(name) if (Path(name) / FILE).is_file() else run_named(name, output).path).resolve() for name in runs
    ]
    if len(set(folders)) < len(folders):
        raise UserError("compare: the same run is named twice")
    comparison = compare(folders)
    console = Console()
    for table in tables_of(comparison):
        console.print(table)
    for line in lines_of(comparison):
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    if report is not None:
        page = write_comparison(report, comparison, lang=lang)
        console.print(f"report written to {page}", soft_wrap=True, highlight=False)
    return comparison


def write_comparison(folder: Path, comparison: Comparison, *, lang: Lang = "en") -> Path:
    """Write `compare.html` and `compare.json` into `folder`; return the page.

    Raises UserError if the folder cannot be written to.
    """
    words = WORDS[lang]
    timed = [
        (run.name, run.latency, run.mask.value, run.mask.low, run.mask.high)
        for run in comparison.runs
        if run.latency is not None and run.mask.value is not None
    ]
    page = render(
        Path(__file__).parent / "compare.html.j2",
        lang=lang,
        words=words,
        title=" / ".join(run.name for run in comparison.runs),
        runs=[_row(run, words) for run in comparison.runs],
        names=[run.name for run in comparison.runs],
        classes=[(name, [_class(run, name, words) for run in comparison.runs]) for name in comparison.classes],
        plot=plots.points(timed, words["latency"], f"{words['mask']} AP") if timed else None,
        note=words["note_compare"].format(pictures=comparison.pictures, draws=comparison.draws),
    )
    tree = {
        "pictures": comparison.pictures,
        "draws": comparison.draws,
        "runs": [run.as_dict() for run in comparison.runs],
    }
    return write_page(folder, "compare", page, tree)


def tables_of(comparison: Comparison) -> list[Table]:
    """For the screen: the runs, and their classes."""
    overall = Table(title=f"mask AP on {comparison.pictures} pictures, per cent", title_justify="left")
    for heading in ("run", "mask AP", "95 %", "box AP", "ms a picture", "MB"):
        overall.add_column(heading, justify="left" if heading == "run" else "right", overflow="fold")
    for run in comparison.runs:
        overall.add_row(
            run.name,
            percent(run.mask.value),
            _range(run.mask),
            percent(run.box.value),
            "none" if run.latency is None else f"{run.latency:.0f} ({run.engine})",
            "none" if run.megabytes is None else f"{run.megabytes:.1f}",
        )
    by_class = Table(title="mask AP by class", title_justify="left")
    by_class.add_column("class")
    for run in comparison.runs:
        by_class.add_column(run.name, justify="right", overflow="fold")
    for name in comparison.classes:
        cells = [percent(run.by_class[name]) for run in comparison.runs]
        for i, run in enumerate(comparison.runs[1:], 1):
            verdict = run.against_by_class[name].verdict
            cells[i] += "" if verdict == "open" else f" {verdict}"
        by_class.add_row(name, *cells)
    return [by_class, overall]


def lines_of(comparison: Comparison) -> list[str]:
    """A sentence for each run but the first."""
    first = comparison.runs[0].name
    words = WORDS["en"]
    return [
        f"{run.name} against {first}: {_signed(run.against)}, {words[run.against.verdict]}"
        for run in comparison.runs
        if run.against
    ]


def _row(run: Compared, words: dict[str, str]) -> dict[str, Any]:
    verdict = run.against.verdict if run.against else None
    return {
        "name": run.name,
        "mask": percent(run.mask.value),
        "range": _range(run.mask),
        "box": percent(run.box.value),
        "difference": _signed(run.against) if run.against else "",
        "verdict": words[verdict] if verdict else words["against"],
        "tone": _TONES.get(verdict or "", ""),
        "latency": words["none"] if run.latency is None else f"{run.latency:.0f} ({run.engine})",
        "size": words["none"] if run.megabytes is None else f"{run.megabytes:.1f} MB",
    }


def _class(run: Compared, name: str, words: dict[str, str]) -> tuple[str, str, str]:
    """AP, verdict where there is one, and its tone."""
    difference = run.against_by_class.get(name)
    verdict = difference.verdict if difference else "open"
    return percent(run.by_class[name]), "" if verdict == "open" else words[verdict], _TONES.get(verdict, "")


_TONES = {"better": "good", "worse": "bad"}


def _signed(difference: Difference) -> str:
    value = difference.ap.value
    return "–" if value is None else f"{100 * value:+.1f} ({_range(difference.ap)})"


def _range(measured: Interval) -> str:
    return "" if measured.low is None else f"{100 * measured.low:.1f} … {100 * (measured.high or 0):.1f}"
