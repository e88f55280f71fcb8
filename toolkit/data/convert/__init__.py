"""Datasets of other formats, read into the records of training and written again: one format, one file."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from toolkit.data.coco import Annotation, Split
from toolkit.data.convert import cityscapes, coco, labelme, voc, yolo
from toolkit.data.convert.common import ALL
from toolkit.data.folder import new_folder, write_coco
from toolkit.data.masks import rle_to_polygons, segmentation_to_rle
from toolkit.data.merge import unique_ids
from toolkit.errors import UserError

READERS = {"labelme": labelme, "voc": voc, "yolo": yolo, "cityscapes": cityscapes, "coco": coco}


def convert(
    source: Path,
    out: Path,
    *,
    source_format: str | None = None,
    images: Path | None = None,
    to: str = "coco",
    masks: str = "kept",
    link: bool = False,
) -> None:
    """Write the dataset at `source` into the new folder `out`, as COCO or for LabelMe.

    Args:
        source: folder, or annotation file; `source_format`: a key of `READERS`; by default what it looks like.
        images: the folder that the file names of a COCO file start from, where it is not one of the usual.
        to: `coco` or `labelme`.
        masks: `kept`; `polygons`, which RLE becomes where they draw the same mask; or `rle`, which all becomes.
        link: give the pictures a second name instead of copying them.

    Raises UserError.
    """
    with new_folder(out) as folder, reading(source, source_format, images=images) as parts:
        parts = [_with_masks(part, masks) for part in require_objects(parts, source)]
        if to == "labelme":
            labelme.write(parts, folder, link=link)
        else:
            write_coco(parts, folder, link=link)
    report(parts, out)
    if to == "coco" and parts[0].name == ALL:
        _print(f"not divided: `seg-tune split {out} NEW` makes the parts that training takes")


@contextmanager
def reading(source: Path, source_format: str | None = None, *, images: Path | None = None) -> Iterator[list[Split]]:
    """The parts of the dataset at `source`, with one list of classes, and ids that are unique in each.

    Pictures that lie inside other files exist as long as the block runs.

    Raises UserError.
    """
    if not source.exists():
        raise UserError(f"{source}: no such file or folder")
    name = source_format or detect(source)
    if images is not None and name != "coco":
        raise UserError(f"--images {images}: only COCO files name pictures from a folder of their own")
    with tempfile.TemporaryDirectory() as scratch:
        if name == "coco":
            parts = coco.read(source, scratch=Path(scratch), images=images)
        else:
            parts = READERS[name].read(source, scratch=Path(scratch))
        yield [unique_ids([part])[0] for part in parts]


def detect(source: Path) -> str:
    """The format of the dataset at `source`.

    Raises UserError if it looks like none, or like several.
    """
    found = [name for name, reader in READERS.items() if reader.recognizes(source)]
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(f"{source}: looks like {' and '.join(found)}; say which with --from")
    raise UserError(f"{source}: looks like none of {', '.join(READERS)}; see docs/data.md for their folders")


def require_objects(parts: list[Split], origin: Path) -> list[Split]:
    """The parts, if there is an object in any.

    Raises UserError.
    """
    if not any(not a.iscrowd for part in parts for picture in part.pictures for a in picture.annotations):
        notes = "".join(f" ({line})" for part in parts for line in part.notes[:1])
        raise UserError(f"{origin}: no annotation has a mask; there must be at least one object{notes}")
    return parts


def report(parts: Sequence[Split], out: Path) -> None:
    """Print what has been written to `out`, and what was treated on the way."""
    for line in [*(line for part in parts for line in part.notes), *describe(parts), f"written to {out}"]:
        _print(line)


def _print(line: str) -> None:
    Console(highlight=False, soft_wrap=True, markup=False, emoji=False).print(line)


def describe(parts: Sequence[Split]) -> list[str]:
    """A line about each part."""
    lines = []
    for part in parts:
        objects = sum(not a.iscrowd for picture in part.pictures for a in picture.annotations)
        crowds = sum(a.iscrowd for picture in part.pictures for a in picture.annotations)
        negatives = sum(not picture.annotations for picture in part.pictures)
        more = [f"{crowds} crowd regions"] * bool(crowds) + [f"{negatives} negatives"] * bool(negatives)
        lines.append(f"{part.name}: {', '.join([f'{len(part.pictures)} pictures, {objects} objects', *more])}")
    return lines


def _with_masks(part: Split, masks: str) -> Split:
    if masks == "kept":
        return part
    kept = 0
    pictures = []
    for picture in part.pictures:
        size = (picture.height, picture.width)
        annotations: list[Annotation] = []
        for annotation in picture.annotations:
            shape = annotation.segmentation
            if masks == "rle":
                annotation = dataclasses.replace(annotation, segmentation=segmentation_to_rle(shape, size))
            elif isinstance(shape, dict) and not annotation.iscrowd:
                polygons = rle_to_polygons(shape)
                kept += polygons is None
                annotation = dataclasses.replace(annotation, segmentation=polygons or shape)
            annotations.append(annotation)
        pictures.append(dataclasses.replace(picture, annotations=annotations))
    note = f"{part.json_path}: {kept} masks of {part.name} have holes, which polygons cannot say: they stay RLE"
    return dataclasses.replace(part, pictures=pictures, notes=(*part.notes, *([note] if kept else [])))
