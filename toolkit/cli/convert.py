"""`seg-tune convert`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer


class Source(str, Enum):
    labelme = "labelme"
    voc = "voc"
    yolo = "yolo"
    cityscapes = "cityscapes"
    coco = "coco"


class Target(str, Enum):
    coco = "coco"
    labelme = "labelme"


class Masks(str, Enum):
    kept = "kept"
    polygons = "polygons"
    rle = "rle"


def convert(
    source: Annotated[Path, typer.Argument(help="Folder of the dataset, or its annotation file.", metavar="IN")],
    out: Annotated[Path, typer.Argument(help="New folder for all that is written.")],
    source_format: Annotated[
        Source | None, typer.Option("--from", help="Format of IN; by default what it looks like.")
    ] = None,
    to: Annotated[Target, typer.Option(help="What is written: COCO to train on, or LabelMe to correct by hand.")] = (
        Target.coco
    ),
    masks: Annotated[
        Masks, typer.Option(help="Keep masks as they are, make RLE polygons where those can say it, or all RLE.")
    ] = Masks.kept,
    images: Annotated[Path | None, typer.Option(help="Folder that file names in a COCO file start from.")] = None,
    link: Annotated[bool, typer.Option("--link", help="Hard-link the pictures instead of copying them.")] = False,
) -> None:
    """Convert a dataset from LabelMe, Pascal VOC masks, YOLO-seg, Cityscapes or COCO to COCO or LabelMe."""
    from toolkit.data import convert as formats

    formats.convert(
        source,
        out,
        source_format=source_format.value if source_format else None,
        to=to.value,
        masks=masks.value,
        images=images,
        link=link,
    )
