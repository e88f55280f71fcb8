"""`seg-tune quickstart`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def quickstart(
    model: Annotated[str, typer.Option(help="The model to train from scratch.")] = "PP-YOLOE_seg-S",
    output: Annotated[Path, typer.Option(help="New folder for all that is written.")] = Path("quickstart"),
    device: Annotated[
        str, typer.Option(help="auto, cpu, cpu:2 (two processes), gpu:0, npu:0, xpu:0 or mlu:0.")
    ] = "auto",
) -> None:
    """See the whole way in a few minutes: train, evaluate, export and predict on a bundled dataset."""
    from toolkit import quickstart as guide

    guide.quickstart(model=model, output=output, device=device)
