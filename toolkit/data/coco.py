"""COCO instance annotations as records, refused before training where they cannot be trained on.

The rules are those of `toolkit.data.findings`. An error is one line that names the file and the place in it,
`annotations[12] id 34`; findings of one kind are summed up in it. What is harmless is treated as datasets/README.md
says, and said in the split's notes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.data.findings.file import File, numbers, read_file
from toolkit.data.findings.geometry import check_masks, check_objects, polygons_of, turn_polygons
from toolkit.data.findings.pictures import find_pictures, read_headers
from toolkit.data.findings.record import Findings
from toolkit.data.findings.splits import check_classes
from toolkit.data.findings.structure import check_categories, check_image_ids, check_references
from toolkit.data.images import upright, upright_points
from toolkit.data.layouts import Source, find_sources
from toolkit.data.masks import (
    Box,
    Segmentation,
    Window,
    mask_to_rle,
    parse_rle,
    rle_area,
    rle_to_mask,
    segmentation_to_rle,
)
from toolkit.recipe import Data

Extra = Mapping[str, Any]
"""What else a file says of an entry. Only `convert` reads it, to write it on."""
_NO_EXTRA: Extra = {}


@dataclass(frozen=True, slots=True)
class Annotation:
    """One object, or one crowd region."""

    id: int
    category: int
    """Index in the split's classes."""
    bbox: Box
    """x1, y1, x2, y2 in pixels, around the mask."""
    segmentation: Segmentation
    area: float
    """Square pixels, as the file says, else of the mask."""
    iscrowd: bool
    extra: Extra = field(default_factory=lambda: _NO_EXTRA)


@dataclass(frozen=True, slots=True)
class Picture:
    id: int
    path: Path
    file_name: str
    height: int
    """Height and width as displayed (EXIF orientation applied)."""
    width: int
    annotations: list[Annotation]
    extra: Extra = field(default_factory=lambda: _NO_EXTRA)
    window: Window | None = None
    """The part of it that this is about; None: all of it. Annotations and size are those of the whole picture."""


@dataclass(frozen=True, slots=True)
class Split:
    name: str
    json_path: Path
    classes: tuple[str, ...]
    """Names in the order of their ids."""
    category_ids: tuple[int, ...]
    """The file's id of each class."""
    pictures: list[Picture]
    """In the order of the file; those without annotations are negatives."""
    notes: tuple[str, ...] = ()
    """What was treated rather than refused, a line each."""
    extra: Extra = field(default_factory=lambda: _NO_EXTRA)
    category_extra: tuple[Extra, ...] = ()
    """Of each class, or nothing."""


@dataclass(frozen=True, slots=True)
class Dataset:
    train: Split
    val: Split
    """Has the classes of `train`."""
    root: Path


def dataset_of(data: Data) -> Dataset:
    """The dataset that a recipe names.

    Raises UserError.
    """
    return find_dataset(
        Path(data.path) if data.path else None,
        train_json=Path(data.train_json) if data.train_json else None,
        val_json=Path(data.val_json) if data.val_json else None,
        images=Path(data.images) if data.images else None,
    )


def find_dataset(
    root: Path | None, *, train_json: Path | None = None, val_json: Path | None = None, images: Path | None = None
) -> Dataset:
    """The dataset in the folder `root`, in one of the known layouts or in the files named.

    The arguments are those of `find_sources`.

    Raises UserError for a folder without a dataset and for a dataset that cannot be trained on.
    """
    sources = find_sources(root, train_json=train_json, val_json=val_json, images=images)
    for source in sources:
        if not source.json_path.exists():
            read_checked(source)  # Said before minutes go into reading the other one.
    train_file, val_file = map(read_checked, sources)
    findings = Findings()
    check_classes(train_file, val_file, findings)
    findings.check()
    train, val = _split(train_file), _split(val_file)
    return Dataset(train, _with_classes_of(train, val), root or train.json_path.parent)


def load_split(json_path: Path, folders: Sequence[Path], *, root: Path, name: str, may_be_empty: bool = False) -> Split:
    """Read one annotation file and the headers of its pictures.

    Args:
        folders: where file names may start from, tried in order.
        root: what no file name may lead out of.
        may_be_empty: whether all pictures may be negatives.

    Raises UserError.
    """
    return _split(read_checked(Source(name, json_path, tuple(folders), root), may_be_empty=may_be_empty))


def read_checked(source: Source, *, may_be_empty: bool = False) -> File:
    """Read an annotation file and the headers of its pictures.

    Args:
        may_be_empty: whether all pictures may be negatives.

    Raises UserError for the first error.
    """
    findings = Findings()
    file = read_file(source, findings)
    findings.check()
    assert file is not None
    check_categories(file, findings)
    sound = check_image_ids(file, findings)
    findings.check()
    find_pictures(file, findings)
    findings.check()
    read_headers(file, findings)
    findings.check()
    check_references(file, sound, findings)
    check_masks(file, findings)
    findings.check()
    if not may_be_empty:
        check_objects(file, findings)
        findings.check()
    return file


def _split(file: File) -> Split:
    assert file.outlines is not None
    names = file.column("images", "file_name")
    pictures = [
        Picture(number, path, name, height, width, [])
        for number, path, name, (height, width) in zip(
            file.image_ids.tolist(), file.files, names, file.size.tolist(), strict=True
        )
        if path is not None
    ]
    kept = np.flatnonzero(~file.empty)
    entries, areas = file.sections["annotations"], numbers(file.column("annotations", "area"))
    for row, image, category, crowd, area in zip(
        *(column[kept].tolist() for column in (np.arange(len(entries)), file.image, file.category, file.crowd, areas)),
        strict=False,
    ):
        picture = pictures[image]
        segmentation, box = _shape(file, row, image)
        if not 0 < area < math.inf:
            area = rle_area(segmentation_to_rle(segmentation, (picture.height, picture.width)))
        # Nothing but messages refers to the id.
        number = entries[row].get("id", -row - 1)
        picture.annotations.append(
            Annotation(-row - 1 if number is None else number, category, box, segmentation, float(area), crowd)
        )
    return Split(
        name=file.split,
        json_path=file.path,
        classes=tuple(file.classes.values()),
        category_ids=tuple(file.classes),
        pictures=pictures,
        notes=tuple(_notes(file)),
    )


def _shape(file: File, row: int, image: int) -> tuple[Segmentation, Box]:
    """The segmentation on the upright picture, and the box around it."""
    assert file.outlines is not None
    height, width = file.frame[image].tolist()
    orientation = int(file.orientation[image])
    x1, y1, x2, y2 = file.box[row].tolist()
    if row in file.outlines.rles:
        rle = parse_rle(file.outlines.rles[row], (height, width))
        segmentation: Segmentation = rle
        if orientation != 1:
            segmentation = mask_to_rle(upright(rle_to_mask(rle), orientation))
    else:
        polygons = polygons_of(file.outlines, row)
        segmentation = turn_polygons(polygons, orientation, (height, width)) if orientation != 1 else polygons
    if orientation != 1:
        corners = upright_points(np.array([[x1, y1], [x2, y2]]), orientation, (height, width))
        (x1, y1), (x2, y2) = corners.min(0).tolist(), corners.max(0).tolist()
    return segmentation, (x1, y1, x2, y2)


def _notes(file: File) -> Iterator[str]:
    """What was treated rather than refused."""
    grouped = [name for name in file.column("categories", "name") if name not in file.classes.values()]
    turned = [file.column("images", "file_name")[row] for row in np.flatnonzero(file.orientation != 1)]
    empty = [
        f"annotations[{row}] id {file.sections['annotations'][row].get('id')}" for row in np.flatnonzero(file.empty)
    ]
    used = set(file.category[~file.empty].tolist())
    unused = [name for i, name in enumerate(file.classes.values()) if i not in used and file.split == "train"]
    for kind, texts in {
        "categories that only group others (left out)": grouped,
        "pictures that EXIF turns and whose annotations are for the unturned pixels (annotations turned too)": turned,
        "annotations whose mask is empty (left out)": empty,
        "classes without any annotation": unused,
    }.items():
        if texts:
            more = f" and {len(texts) - 1} more" if texts[1:] else ""
            yield f"{file.path}: {len(texts)} {kind}: {texts[0]}{more}"


def _with_classes_of(train: Split, val: Split) -> Split:
    """`val` with its classes taken by name from those of `train`, which are at least the same."""
    if val.classes == train.classes:
        return val
    own_ids = dict(zip(val.classes, val.category_ids, strict=True))
    free = iter(range(max(*own_ids.values(), *train.category_ids) + 1, 2**63))
    ids = []
    for name, train_id in zip(train.classes, train.category_ids, strict=True):
        ids.append(own_ids.get(name, next(free) if train_id in own_ids.values() else train_id))
    moved = [train.classes.index(name) for name in val.classes]
    pictures = [
        dataclasses.replace(
            picture,
            annotations=[dataclasses.replace(a, category=moved[a.category]) for a in picture.annotations],
        )
        for picture in val.pictures
    ]
    missing = [name for name in train.classes if name not in val.classes]
    how = f"lack {', '.join(missing)}" if missing else "have another order"
    note = f"{val.json_path}: its categories {how}; classes are taken by name from {train.json_path}"
    return dataclasses.replace(
        val, classes=train.classes, category_ids=tuple(ids), pictures=pictures, notes=(*val.notes, note)
    )
