"""A report on a model: one page without external resources, and the same as JSON."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from toolkit.data.coco import Split
from toolkit.data.findings.table import Lang
from toolkit.data.page import render, write_page
from toolkit.errors import UserError
from toolkit.evaluate import plots
from toolkit.evaluate.advice import advise, told
from toolkit.evaluate.explain import Figures
from toolkit.evaluate.gallery import Bad
from toolkit.evaluate.words import WORDS

CLASSES = 12
"""Classes with a curve of their own, and in the confusion matrix beside the sum of the others."""
MEASURES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100")


def write_report(
    folder: Path, figures: Figures, worst: Sequence[Bad], *, title: str, split: Split, lang: Lang = "en"
) -> Path:
    """Write `report.html` and `report.json` into `folder`; return the page.

    Args:
        figures: of `explain`; `worst`: pictures to show.

    Raises UserError if the folder cannot be written to.
    """
    advice = advise(figures)
    tree = {
        "model": title,
        "data": str(split.json_path),
        **figures,
        "worst": [{"picture": bad.picture.file_name, "missed": bad.missed, "false": bad.false} for bad in worst],
        "advice": [{**piece, "text": told(piece, "en")} for piece in advice],
    }
    words = WORDS[lang]
    page = render(
        Path(__file__).parent / "report.html.j2",
        lang=lang,
        words=words,
        title=title,
        data=str(split.json_path),
        tiles=list(_tiles(figures, words)),
        advice=[told(piece, lang) for piece in advice],
        measures=MEASURES,
        headline=[
            (words[kind], [_percent(rows[name]) for name in MEASURES]) for kind, rows in figures["headline"].items()
        ],
        plots=list(_plots(figures, words)),
        errors=list(_errors(figures, words)),
        counted=words["note_counted"].format(threshold=figures["errors"]["threshold"]),
        classes=[_class_row(row, words) for row in figures["by_class"]],
        matrix=_matrix(figures["confusion"], words),
        pictures=list(_pictures(worst, split, words)),
    )
    return write_page(folder, "report", page, tree)


def _tiles(figures: Figures, words: dict[str, str]) -> Iterator[tuple[str, str, str]]:
    """Number, name, and the interval where there is one."""
    for kind, measure in (("mask", "AP"), ("mask", "AP50"), ("mask", "AP75"), ("box", "AP")):
        measured = figures["intervals"][kind][measure]
        yield _percent(measured["value"]), f"{words[kind]} {measure}", _range(measured)
    yield _percent(figures["headline"]["boundary"]["AP"]), f"{words['boundary']} AP", ""
    yield f"{figures['pictures']:,}", words["count_pictures"], ""
    yield f"{figures['objects']:,}", words["count_objects"], ""
    yield f"{figures['detections']:,}", words["count_detections"], ""


def _plots(figures: Figures, words: dict[str, str]) -> Iterator[tuple[str, Markup, str]]:
    """Title, plot and what is to be said of it."""
    curves = figures["curves"]
    if curves["mask"]:
        yield (
            words["plot_errors"],
            plots.bars(
                [(words[name], max(lost, 0.0), None, None) for name, lost in figures["errors"]["lost"].items()],
                kind="v",
            ),
            words["note_errors"],
        )
        chosen = {
            words["mask_at"].format(iou="0.50"): curves["mask"]["0.50"],
            words["mask_at"].format(iou="0.75"): curves["mask"]["0.75"],
            words["mask_mean"]: curves["mask"]["mean"],
            words["box_at"].format(iou="0.50"): curves["box"]["0.50"],
        }
        drawn = {name: list(zip(curves["recall"], curve, strict=True)) for name, curve in chosen.items()}
        yield words["plot_curves"], plots.lines(drawn, words["recall"], words["precision"]), ""
    measured = figures["reliability"]
    if measured["ece"] is not None:
        note = words["note_reliability"].format(ece=measured["ece"], least=measured["least_score"])
        yield words["plot_reliability"], plots.reliability(measured["bins"], words["score"], words["share_right"]), note
    for kind, slices in figures["slices"].items():
        if slices:
            rows = [(_slice_name(kind, part, words), *_ends(part["ap"])) for part in slices]
            yield words[f"plot_{kind}"], plots.bars(rows), words["note_slices"]
    common = sorted(figures["by_class"], key=lambda row: -row["objects"])[:CLASSES]
    for start in range(0, len(common), 4):
        drawn = {
            row["name"]: list(zip(curves["recall"], curves["by_class"][row["name"]], strict=True))
            for row in common[start : start + 4]
            if row["name"] in curves.get("by_class", {})
        }
        if drawn:
            yield words["plot_classes"], plots.lines(drawn, words["recall"], words["precision"]), ""


def _slice_name(kind: str, part: dict[str, Any], words: dict[str, str]) -> str:
    if kind == "size":
        return f"{words[part['name']]} ({part['objects']:,})"
    low, high = round(part["low"]), round(part["high"])
    return f"{low if low == high else f'{low}–{high}'} ({words['n_pictures'].format(count=part['pictures'])})"


def _errors(figures: Figures, words: dict[str, str]) -> Iterator[tuple[str, str, str, str]]:
    """Kind, what it means, how many, AP50 lost."""
    for name, lost in figures["errors"]["lost"].items():
        yield words[name], words[f"{name}_means"], f"{figures['errors']['counts'][name]:,}", f"{100 * lost:.1f}"


def _class_row(row: dict[str, Any], words: dict[str, str]) -> list[str]:
    threshold = row["threshold"]
    most = max(row["errors"], key=row["errors"].__getitem__)
    return [
        row["name"],
        f"{row['objects']:,}",
        _percent(row["mask"]["value"]),
        _range(row["mask"]),
        _percent(row["box"]),
        _percent(row["boundary"]),
        *(
            (f"{threshold['score']:.4g}", _percent(threshold["precision"]), _percent(threshold["recall"]))
            if threshold
            else ("–", "–", "–")
        ),
        f"{words[most]} ({row['errors'][most]})" if row["errors"][most] else "–",
    ]


def _matrix(confusion: dict[str, Any], words: dict[str, str]) -> dict[str, Any]:
    """The matrix with the classes that are confused most, the others summed up."""
    names, matrix = confusion["classes"][:-1], confusion["matrix"]
    size = len(names)
    wrong = [sum(matrix[i]) + sum(row[i] for row in matrix) - 2 * matrix[i][i] for i in range(size)]
    shown = sorted(sorted(range(size), key=lambda i: -wrong[i])[:CLASSES])
    others = [i for i in range(size) if i not in shown]
    groups = [[i] for i in shown] + ([others] if others else []) + [[size]]
    labels = [names[i] for i in shown] + ([words["others"].format(count=len(others))] if others else [])
    cells = []
    for a, rows in enumerate(groups):
        counts = [sum(matrix[i][j] for i in rows for j in columns) for columns in groups]
        total = max(sum(counts), 1)
        cells.append([(count, count / total, a == b) for b, count in enumerate(counts)])
    return {
        "columns": [*labels, words["not_found"]],
        "rows": list(zip([*labels, words["nothing_there"]], cells, strict=True)),
        "note": words["note_matrix"].format(threshold=confusion["threshold"]),
    }


def _pictures(worst: Sequence[Bad], split: Split, words: dict[str, str]) -> Iterator[dict[str, Any]]:
    for bad in worst:
        try:
            drawn = bad.drawn(split.classes)
        except UserError:
            continue
        yield {
            "name": bad.picture.file_name,
            "caption": words["caption"].format(missed=bad.missed, false=bad.false),
            "sides": [base64.b64encode(side).decode() for side in drawn],
        }


def _ends(measured: dict[str, float | None]) -> tuple[float | None, float | None, float | None]:
    return measured["value"], measured["low"], measured["high"]


def _range(measured: dict[str, float | None]) -> str:
    _, low, high = _ends(measured)
    return "" if low is None or high is None else f"{100 * low:.1f} … {100 * high:.1f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"
