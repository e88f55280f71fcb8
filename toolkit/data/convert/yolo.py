"""YOLO's segmentation labels (https://docs.ultralytics.com/datasets/segment/): a text file for each picture, a line for
each object: the class, then x1 y1 x2 y2 ... in units of the picture's width and height.

A YAML file names classes and parts, as Ultralytics and Roboflow write it; without one, `classes.txt` names the classes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from toolkit.data.coco import Annotation, Picture, Split
from toolkit.data.convert.common import (
    ALL,
    ENDINGS,
    Notes,
    Sheet,
    checked,
    class_names,
    make_parts,
    read_bytes,
    read_lines,
)
from toolkit.errors import UserError

SLACK = 0.01
"""How far coordinates may leave 0 to 1: labels made by tracing do, by a pixel."""
_PARTS = ("train", "val", "test")


def recognizes(root: Path) -> bool:
    if _yaml(root) is not None:
        return True
    return (root / "labels").is_dir() and (root / "classes.txt").is_file()


def read(root: Path, *, scratch: Path) -> list[Split]:
    """The parts that the YAML file names; pictures without a label file are negatives, as YOLO takes them.

    Args:
        root: the YAML file, or the folder it lies in.

    Raises UserError.
    """
    notes = Notes(root)
    file = _yaml(root)
    if file is None:
        if not (root / "classes.txt").is_file():
            raise UserError(f"{root}: no YAML file with names and train, and no classes.txt")
        classes = class_names(root / "classes.txt")
        found = {ALL: _pictures_in(root / "images")}
    else:
        tree = _tree(file)
        classes = _names(tree.get("names"), file)
        found = _parts(tree, file)
    parts = {name: [_picture(path, _common(paths), classes, notes) for path in paths] for name, paths in found.items()}
    return make_parts(parts, root, classes, notes)


def _yaml(root: Path) -> Path | None:
    files = [root] if root.is_file() else sorted((*root.glob("*.yaml"), *root.glob("*.yml")))
    for file in files:
        if file.suffix in (".yaml", ".yml"):
            text = read_bytes(file)
            if re.search(rb"^names *:", text, re.MULTILINE) and re.search(rb"^(train|val|test) *:", text, re.MULTILINE):
                return file
    return None


def _tree(file: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(read_bytes(file).decode("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: not a readable YAML file: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{file}: must be a mapping with the keys names, train and val")
    return tree


def _names(value: Any, file: Path) -> list[str]:
    """Classes are a list, or a mapping from 0, 1, ... to names."""
    if isinstance(value, dict):
        if sorted(value, key=str) != sorted(range(len(value)), key=str):
            raise UserError(f"{file}: names: must have the keys 0 to {len(value) - 1}")
        value = [value[index] for index in range(len(value))]
    if not isinstance(value, list) or not value or len({str(name) for name in value}) < len(value):
        raise UserError(f"{file}: names: must be a list of different names")
    return [str(name) for name in value]


def _parts(tree: dict[str, Any], file: Path) -> dict[str, list[Path]]:
    said = str(tree.get("path") or "")
    # `path` is where the dataset lay for whoever wrote the file.
    bases = [file.parent / said, file.parent]
    parts = {}
    for name in _PARTS:
        value = tree.get(name)
        places = value if isinstance(value, list) else [value] if value else []
        if pictures := [picture for place in places for picture in _pictures_at(str(place), bases, f"{file}: {name}")]:
            parts[name] = list(dict.fromkeys(pictures))
    if not parts:
        raise UserError(f"{file}: names no pictures with train, val or test")
    return parts


def _pictures_at(place: str, bases: Sequence[Path], key: str) -> list[Path]:
    # Roboflow writes ../train/images for what lies in train/images.
    for base in bases:
        for spelled in (place, place.removeprefix("../")):
            path = base / spelled
            if path.is_dir():
                return _pictures_in(path)
            if path.is_file():
                return [_listed(line, path) for line in read_lines(path) if line]
    raise UserError(f"{key}: {place}: no such folder or list of pictures")


def _listed(line: str, file: Path) -> Path:
    path = file.parent / line
    if not path.is_file():
        raise UserError(f"{file}: picture {line} is missing")
    return path


def _pictures_in(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS)
    if not found:
        raise UserError(f"{folder}: no picture in this folder")
    return found


def _common(pictures: Sequence[Path]) -> Path:
    """The folder that all pictures lie in."""
    first = pictures[0].parent
    return next(f for f in (first, *first.parents) if all(p.is_relative_to(f) for p in pictures))


def _labels_of(path: Path) -> Path:
    """YOLO's rule: the last folder `images` becomes `labels`, the ending `.txt`; else the label lies beside."""
    parts = list(path.parts)
    for i in range(len(parts) - 2, -1, -1):
        if parts[i] == "images":
            return Path(*parts[:i], "labels", *parts[i + 1 :]).with_suffix(".txt")
    return path.with_suffix(".txt")


def _picture(path: Path, base: Path, classes: Sequence[str], notes: Notes) -> Picture:
    sheet = Sheet.open(path, declared=(None, None), place=str(path))
    name = path.relative_to(base).as_posix()
    file = _labels_of(path)
    if not file.is_file():
        notes.add("pictures without a label file (negatives)", name)
        return sheet.picture(name, [])
    annotations = [
        _annotation(line, f"{file}: line {number}", sheet, classes, notes)
        for number, line in enumerate(read_lines(file), 1)
        if line
    ]
    return sheet.picture(name, annotations)


def _annotation(line: str, place: str, sheet: Sheet, classes: Sequence[str], notes: Notes) -> Annotation | None:
    index, *rest = line.split()
    try:
        category, values = int(index), np.array([float(value) for value in rest])
    except ValueError:
        raise UserError(f"{place}: must be the number of a class, then x1 y1 x2 y2 ...") from None
    if not 0 <= category < len(classes):
        raise UserError(f"{place}: class {category} is not one of 0 to {len(classes) - 1}")
    if len(values) == 4:
        notes.add("lines with a box and no outline (left out)", place)
        return None
    if len(values) < 6 or len(values) % 2:
        raise UserError(f"{place}: an outline has x and y of at least 3 points (has {len(values)} numbers)")
    if not (values >= -SLACK).all() or not (values <= 1 + SLACK).all():
        raise UserError(f"{place}: coordinates must lie between 0 and 1, in units of the picture's width and height")
    height, width = sheet.size
    polygon = values.clip(0, 1) * np.tile((width, height), len(values) // 2)
    annotation = checked(category, [polygon], sheet.size, place=place)
    if annotation is None:
        notes.add("objects whose mask is empty (left out)", place)
    return annotation
