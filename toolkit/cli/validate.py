"""`seg-tune validate`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer


class Language(str, Enum):
    en = "en"
    zh = "zh"


def validate(
    data: Annotated[Path | None, typer.Argument(help="Folder of the COCO dataset.", show_default=False)] = None,
    fix: Annotated[
        Path | None, typer.Option(metavar="OUT", help="Write a mended copy of the dataset into this new folder.")
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write a page and check_dataset_result.json into this folder."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all findings as JSON.")] = False,
    max_images: Annotated[
        int | None, typer.Option(min=0, help="Open only so many pictures of each split, evenly spread.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Say what this model can make of the data at best, and what is too small for it.")
    ] = None,
    lang: Annotated[
        Language | None, typer.Option(help="Language of findings and report; by default that of LANG.")
    ] = None,
    train_json: Annotated[Path | None, typer.Option(help="Annotations to train on, in a layout of your own.")] = None,
    val_json: Annotated[Path | None, typer.Option(help="Annotations to evaluate on.")] = None,
    images: Annotated[Path | None, typer.Option(help="Folder that file names in the annotations start from.")] = None,
) -> None:
    """Read every picture and annotation, say what is wrong and where, and mend it on request.

    Ends with code 1 if training would refuse the data.
    """
    from toolkit.data.validate import validate_dataset

    passed = validate_dataset(
        data,
        fix=fix,
        report=report,
        as_json=as_json,
        max_images=max_images,
        model=model,
        lang=lang.value if lang else None,
        train_json=train_json,
        val_json=val_json,
        images=images,
    )
    raise typer.Exit(0 if passed else 1)
