"""`seg-tune models`."""

from __future__ import annotations

import json
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from toolkit.zoo import ZooModel


class Sort(str, Enum):
    mask_ap = "mask-ap"
    size = "size"
    gpu = "gpu"
    cpu = "cpu"
    name = "name"


def models(
    name: Annotated[str | None, typer.Argument(help="Show all about this one.", show_default=False)] = None,
    sort: Annotated[Sort, typer.Option(help="Best first; models without the figure come last.")] = Sort.mask_ap,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the sixteen models with their published figures, and which of them this version trains."""
    from toolkit.zoo import MODELS, find_model

    chosen = [find_model(name)] if name else sorted(MODELS.values(), key=lambda model: _rank(model, sort))
    if as_json:
        facts = [_facts(model) for model in chosen]
        typer.echo(json.dumps(facts[0] if name else facts, indent=2))
    elif name:
        _show_one(chosen[0])
    else:
        _show_table(chosen)


def _rank(model: ZooModel, sort: Sort) -> tuple[Any, ...]:
    figure: float | None = {
        Sort.mask_ap: -model.mask_ap,
        Sort.size: model.size_mb,
        Sort.gpu: model.gpu_ms,
        Sort.cpu: model.cpu_ms,
        Sort.name: 0.0,
    }[sort]
    return (figure is None, figure, model.name)


def _facts(model: ZooModel) -> dict[str, Any]:
    from dataclasses import asdict

    return {**asdict(model), "recipe": str(model.recipe)}


def _show_table(chosen: list[ZooModel]) -> None:
    from rich.console import Console
    from rich.table import Table

    # 79 columns with the longest name.
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("model", no_wrap=True)
    for heading in ("mask AP", "MB", "GPU ms", "CPU ms"):
        table.add_column(heading, justify="right", no_wrap=True)
    for model in chosen:
        figures = (f"{model.mask_ap:.1f}", f"{model.size_mb:.1f}", _ms(model.gpu_ms), _ms(model.cpu_ms))
        table.add_row(model.name, *figures)
    console = Console(highlight=False)
    console.print(table)
    console.print(
        "mask AP: per cent, COCO val2017. GPU: Tesla T4; CPU: Xeon 6271C, 8 threads; one\n"
        "picture in FP32. All of them train with this version. More on one: seg-tune models NAME",
        style="dim",
    )


def _show_one(model: ZooModel) -> None:
    from rich.console import Console

    rows = {
        "family": model.family,
        "backbone": model.backbone,
        "mask AP": f"{model.mask_ap:.1f} % on COCO val2017, after {model.epochs} epochs",
        "weights": f"{model.size_mb:.1f} MB",
        "GPU": f"{_ms(model.gpu_ms)} ms a picture (Tesla T4, FP32)" if model.gpu_ms else "not published",
        "CPU": f"{_ms(model.cpu_ms)} ms a picture (Xeon 6271C, 8 threads, FP32)" if model.cpu_ms else "not published",
        "recipe": str(model.recipe),
        "download": model.url,
        "train": f"seg-tune train --model {model.name} --data DIR",
    }
    console = Console(highlight=False)
    console.print(model.name, style="bold")
    for label, value in rows.items():
        # A path or an address is to be copied: no line breaks of ours in it.
        console.print(f"  {label:<9} {value}", soft_wrap=True, markup=False)


def _ms(figure: float | None) -> str:
    return f"{figure:.0f}" if figure else "-"
