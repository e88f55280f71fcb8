"""Pascal VOC's masks (http://host.robots.ox.ac.uk/pascal/VOC/voc2012/): `SegmentationObject/` says which pixels are one
object, `SegmentationClass/` of which class. 0 is background, 255 is undecided and belongs to nothing.

Coloured masks, as CVAT writes them, are read by VOC's palette or by `labelmap.txt`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from toolkit.data.coco import Annotation, Picture, Split
from toolkit.data.convert.common import (
    ALL,
    Notes,
    Sheet,
    beside,
    checked,
    class_names,
    make_parts,
    part_of,
    read_ids,
    read_lines,
)
from toolkit.data.masks import id_map_to_rles
from toolkit.errors import UserError

# fmt: off
VOC_CLASSES = [
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
]
# fmt: on
UNDECIDED = 255
_OBJECTS, _CLASSES, _PICTURES = "SegmentationObject", "SegmentationClass", "JPEGImages"
Colour = tuple[int, int, int]


def _palette() -> list[Colour]:
    """VOC's colour of each index: its bits, lowest first, go in turn to red, green and blue, highest first."""
    index = np.arange(256)
    colours = np.zeros((256, 3), np.int64)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= ((index >> (3 * bit + channel)) & 1) << (7 - bit)
    return [(red, green, blue) for red, green, blue in colours.tolist()]


_PALETTE = {colour: index for index, colour in enumerate(_palette())}
_ALWAYS = {(0, 0, 0): 0, (224, 224, 192): UNDECIDED}


def recognizes(root: Path) -> bool:
    return _start(root) is not None


def read(root: Path, *, scratch: Path) -> list[Split]:
    """The pictures of the folder that have both masks, in the parts of `ImageSets/Segmentation/`.

    Classes are those of `class_names.txt` or `labelmap.txt`, else VOC's twenty.

    Raises UserError.
    """
    start = _start(root)
    if start is None:
        raise UserError(f"{root}: no folder {_OBJECTS} (class masks alone do not tell objects of a class apart)")
    classes, colours = _classes(start)
    stems = _stems(start)
    notes = Notes(root)
    parts = {
        name: [_picture(start, stem, classes, colours, notes) for stem in members] for name, members in stems.items()
    }
    return make_parts(parts, root, classes, notes)


def _start(root: Path) -> Path | None:
    """The folder with the masks: `root`, or VOCdevkit's VOC2012 in it."""
    for folder in (root, *sorted(root.glob("VOC20*")), *sorted(root.glob("VOCdevkit/VOC20*"))):
        if (folder / _OBJECTS).is_dir():
            return folder
    return None


def _stems(start: Path) -> dict[str, list[str]]:
    lists = {
        name: file
        for file in sorted((start / "ImageSets" / "Segmentation").glob("*.txt"))
        if (name := part_of(file.stem)) and file.stem != "trainval"
    }
    masks = sorted(file.stem for file in (start / _OBJECTS).glob("*.png"))
    if not lists:
        if not masks:
            raise UserError(f"{start / _OBJECTS}: no PNG in this folder")
        return {ALL: masks}
    # The test set's annotations are not public; of others a mask may not be missing.
    listed = {name: [line.split()[0] for line in read_lines(file) if line] for name, file in lists.items()}
    if not set(listed.get("test", ())) & set(masks):
        listed.pop("test", None)
    return {name: stems for name, stems in listed.items() if stems}


def _classes(start: Path) -> tuple[list[str], dict[Colour, int]]:
    """The names of the classes, and the index that a colour stands for in coloured masks (0: background)."""
    if (start / "labelmap.txt").is_file():
        return _labelmap(start / "labelmap.txt")
    for name in ("class_names.txt", "labels.txt"):
        if (start / name).is_file():
            return class_names(start / name), _PALETTE
    return VOC_CLASSES, _PALETTE


def _labelmap(file: Path) -> tuple[list[str], dict[Colour, int]]:
    names: list[str] = []
    colours: dict[Colour, int] = {}
    for number, line in enumerate(read_lines(file), 1):
        if not line or line.startswith("#"):
            continue
        name, _, rest = line.partition(":")
        try:
            red, green, blue = (int(value) for value in rest.split(":")[0].split(","))
        except ValueError:
            raise UserError(f"{file}: line {number}: must have the form name:red,green,blue:parts:actions") from None
        if name == "background":
            colours[red, green, blue] = 0
        else:
            names.append(name)
            colours[red, green, blue] = len(names)
    return names, colours


def _picture(start: Path, stem: str, classes: Sequence[str], colours: Mapping[Colour, int], notes: Notes) -> Picture:
    path = beside(start / _PICTURES, stem)
    if path is None:
        raise UserError(f"{start / _PICTURES}: picture {stem} is missing")
    objects = _ids(start / _OBJECTS / f"{stem}.png", _PALETTE, any_colour=True)
    kinds = _ids(start / _CLASSES / f"{stem}.png", colours, any_colour=False)
    if objects.shape != kinds.shape:
        raise UserError(f"{start / _OBJECTS / stem}.png: is not of the size of {_CLASSES}/{stem}.png")
    sheet = Sheet.open(path, declared=objects.shape, place=str(start / _OBJECTS / f"{stem}.png"))
    objects, kinds = sheet.upright(objects), sheet.upright(kinds)
    numbers = set(np.unique(objects).tolist())
    objects[(kinds == 0) | (kinds == UNDECIDED) | (objects == UNDECIDED)] = 0
    for number in sorted(numbers - set(np.unique(objects).tolist()) - {0, UNDECIDED}):
        notes.add("objects without a class (left out)", f"{stem} object {number}")
    annotations: list[Annotation | None] = []
    for number, rle in id_map_to_rles(objects).items():
        values, counts = np.unique(kinds[objects == number], return_counts=True)
        kind = int(values[counts.argmax()])
        if kind > len(classes):
            raise UserError(
                f"{start / _CLASSES / stem}.png: value {kind} is not the number of a class "
                f"(1 to {len(classes)}: {', '.join(classes[:3])}, ...); put the names into class_names.txt"
            )
        if len(values) > 1:
            notes.add("objects with pixels of several classes (taken as that of the most)", f"{stem} object {number}")
        annotations.append(checked(kind - 1, rle, sheet.header.displayed, place=f"{stem} object {number}"))
    return sheet.picture(path.relative_to(start / _PICTURES).as_posix(), annotations)


def _ids(file: Path, colours: Mapping[Colour, int], *, any_colour: bool) -> NDArray[np.integer]:
    """The mask `[H, W]`; of a coloured one the index of each colour.

    Args:
        any_colour: whether colours without an index get numbers of their own, from 256 on.

    Raises UserError.
    """
    pixels = read_ids(file)
    if pixels.ndim == 2:
        return pixels
    codes = pixels @ (1 << 16, 1 << 8, 1)
    found, where = np.unique(codes, return_inverse=True)
    numbers = []
    for count, code in enumerate(found.tolist(), 256):
        colour = (code >> 16, code >> 8 & 255, code & 255)
        number = {**_ALWAYS, **colours}.get(colour, count if any_colour else None)
        if number is None:
            raise UserError(f"{file}: colour {colour} is that of no class; put the colours into labelmap.txt")
        numbers.append(number)
    return np.array(numbers)[where].reshape(codes.shape)
