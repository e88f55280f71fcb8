"""`seg-tune train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change any setting of the recipe; repeatable.")
]


def train(
    model: Annotated[str | None, typer.Option(help="One of the models that `seg-tune models` lists.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of the COCO dataset.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Times that every picture is seen.")] = None,
    batch_size: Annotated[
        str | None, typer.Option(help="Pictures a step, to which the rate is scaled; auto: as many as memory holds.")
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate at the recipe's own batch size.")] = None,
    device: Annotated[
        str, typer.Option(help="auto, cpu, gpu:0, npu:0, xpu:0, mlu:0; several: gpu:0,1 or cpu:2.")
    ] = "auto",
    pretrained: Annotated[
        str | None, typer.Option(help="Weights to start from: official, none, a .pdparams or a .safetensors.")
    ] = None,
    recipe: Annotated[Path | None, typer.Option(help="A recipe in place of the model's own.")] = None,
    settings: Settings = None,
    freeze: Annotated[
        list[str] | None, typer.Option(help="A part of the model that is not trained, as backbone; repeatable.")
    ] = None,
    accumulate: Annotated[int | None, typer.Option(min=1, help="Parts to compute each batch in, one by one.")] = None,
    early_stop: Annotated[
        int | None, typer.Option(min=1, help="End after so many evaluations in a row without a better mask AP.")
    ] = None,
    time_limit: Annotated[float | None, typer.Option(help="Minutes after which the run is saved and left.")] = None,
    output: Annotated[Path, typer.Option(help="Folder in which the run gets a folder.")] = Path("output"),
    seed: Annotated[int | None, typer.Option(help="Of all random numbers.")] = None,
    train_json: Annotated[Path | None, typer.Option(help="Annotations to train on, in a layout of your own.")] = None,
    val_json: Annotated[Path | None, typer.Option(help="Annotations to evaluate on.")] = None,
    images: Annotated[Path | None, typer.Option(help="Folder that file names in the annotations start from.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the newest run, or with --run.")] = False,
    run: Annotated[Path | None, typer.Option(help="The run to resume.")] = None,
) -> None:
    """Train a model on a folder of pictures with COCO annotations."""
    from toolkit.train.start import resume_training, start_training

    flags = {
        "train.epochs": epochs,
        "train.batch_size": batch_size,
        "train.lr": lr,
        "train.pretrained": pretrained,
        "train.seed": seed,
        "train.freeze": freeze,
        "train.accumulate": accumulate,
        "train.early_stop": early_stop,
        "data.path": data,
        "data.train_json": train_json,
        "data.val_json": val_json,
        "data.images": images,
    }
    given = {
        key: str(value) if isinstance(value, Path) else value for key, value in flags.items() if value not in (None, [])
    }
    if resume:
        resume_training(run, output=output, device=device, time_limit=time_limit, ignored=[*given, *(settings or [])])
    else:
        start_training(
            model,
            recipe=recipe,
            overrides=given,
            settings=settings or [],
            device=device,
            output=output,
            time_limit=time_limit,
        )
