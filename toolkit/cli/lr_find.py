"""`seg-tune lr-find`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toolkit.cli.train import Settings


def lr_find(
    model: Annotated[str, typer.Option(help="One of the models that `seg-tune models` lists, or a recipe's path.")],
    data: Annotated[Path, typer.Option(help="Folder of the COCO dataset.")],
    steps: Annotated[int, typer.Option(min=20, help="Steps of training.")] = 100,
    low: Annotated[float, typer.Option(help="The rate of the first step.")] = 1e-7,
    high: Annotated[float, typer.Option(help="The rate of the last step.")] = 1.0,
    pretrained: Annotated[str | None, typer.Option(help="official, none or a weights file.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, gpu:0, npu:0, xpu:0 or mlu:0.")] = "auto",
    settings: Settings = None,
    table: Annotated[Path | None, typer.Option(help="CSV file for rate and loss of each step.")] = None,
) -> None:
    """Find a learning rate: train with one that rises, and see where the loss falls fastest."""
    from toolkit.train.lr_finder import find_lr

    given = {"data.path": str(data), **({"train.pretrained": pretrained} if pretrained else {})}
    lr = find_lr(
        model, overrides=given, settings=settings or [], device=device, steps=steps, low=low, high=high, table=table
    )
    typer.echo(f"the loss falls fastest at --lr {lr:.2g}")
