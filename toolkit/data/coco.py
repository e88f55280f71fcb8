"""COCO instance annotations: found in a folder, read, and refused before training where they cannot be trained on.

An error is one line that names the file and the place in it, `annotations[12] id 34`; findings of one kind are summed
up in it. What is harmless is treated as datasets/README.md says, and said in the split's notes.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import orjson

from toolkit.data.images import Header, read_header, upright, upright_points
from toolkit.data.masks import (
    Box,
    MaskError,
    Polygon,
    Segmentation,
    mask_to_rle,
    parse_polygons,
    parse_rle,
    rle_area,
    rle_box,
    rle_to_mask,
    segmentation_to_rle,
)
from toolkit.errors import UserError
from toolkit.recipe import Data

HEADER_THREADS = 4
SMALL_AREA = 16.0
"""Square pixels under which an outline is drawn to see whether it holds the centre of any pixel."""

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

    Args:
        train_json, val_json: annotation files of another layout, both or none.
        images: the folder that file names start from; by default the usual places beside the annotations.

    Raises UserError for a folder without a dataset and for a dataset that cannot be trained on.
    """
    if root is None and train_json is None:
        raise UserError("say which data to use with --data FOLDER, or with --train-json, --val-json and --images")
    for folder in (root, images):
        if folder is not None and not folder.is_dir():
            raise UserError(f"{folder}: no such folder")
    sources = _named(root, train_json, val_json) if train_json or val_json else _discovered(root or Path())
    splits = []
    for name, file, folders in zip(("train", "val"), *sources, strict=True):
        base = images or root or (file.parent.parent if file.parent.name == "annotations" else file.parent)
        splits.append(load_split(file, [images] if images else folders, root=base, name=name))
    train, val = splits
    return Dataset(train, _with_classes_of(train, val), root or train.json_path.parent)


def load_split(json_path: Path, folders: Sequence[Path], *, root: Path, name: str, may_be_empty: bool = False) -> Split:
    """Read one annotation file and the headers of its pictures.

    Args:
        folders: where file names may start from, tried in order.
        root: what no file name may lead out of.
        may_be_empty: whether all pictures may be negatives.

    Raises UserError.
    """
    findings = Findings(json_path)
    tree = _parse(json_path)
    classes = _classes(tree, findings)
    pictures, turns = _pictures(tree, findings, folders=folders, root=root)
    objects = _annotations(tree, findings, pictures=pictures, classes=classes, turns=turns)
    if not objects and not may_be_empty:
        what = "no annotation has a mask (are these boxes only?)" if tree["annotations"] else "empty"
        raise UserError(f"{json_path}: annotations: {what}; there must be at least one object")
    unused = set(range(len(classes))) - {a.category for p in pictures.values() for a in p.annotations}
    for index in sorted(unused) if name == "train" else ():
        findings.note("classes without any annotation", list(classes.values())[index])
    return Split(
        name=name,
        json_path=json_path,
        classes=tuple(classes.values()),
        category_ids=tuple(classes),
        pictures=list(pictures.values()),
        notes=findings.notes(),
    )


@dataclass
class Findings:
    """What is wrong in one file, summed up by kind."""

    origin: Path
    _errors: dict[str, list[str]] = field(default_factory=dict)
    _notes: dict[str, list[str]] = field(default_factory=dict)

    def error(self, kind: str, text: str) -> None:
        """`text` says place, rule and what to do; `kind` is what findings are counted by."""
        self._errors.setdefault(kind, []).append(text)

    def note(self, kind: str, text: str) -> None:
        """`kind` reads on as `3 <kind>: <text of the first> and 2 more`."""
        self._notes.setdefault(kind, []).append(text)

    def check(self) -> None:
        """Raise UserError for the kind found first."""
        for texts in self._errors.values():
            more = f" (and {len(texts) - 1} more of this kind)" if len(texts) > 1 else ""
            raise UserError(f"{self.origin}: {texts[0]}{more}")

    def notes(self) -> tuple[str, ...]:
        return tuple(
            f"{self.origin}: {len(texts)} {kind}: {texts[0]}" + (f" and {len(texts) - 1} more" if texts[1:] else "")
            for kind, texts in self._notes.items()
        )


# Layouts

Sources = tuple[list[Path], list[list[Path]]]
"""The annotation files of train and val, and for each the folders that its file names may start from."""


def _discovered(root: Path) -> Sources:
    found: dict[str, Sources] = {}
    for train in sorted((root / "annotations").glob("instances_train*.json")):
        year = train.stem.removeprefix("instances_train")
        files = [train, train.with_name(f"instances_val{year}.json")]
        places = [[root / s, root / "images" / s, root / "images", root] for s in (f"train{year}", f"val{year}")]
        found[f"annotations/{train.name}"] = files, places
    if (root / "annotations" / "instance_train.json").is_file():
        files = [root / "annotations" / f"instance_{name}.json" for name in ("train", "val")]
        found["annotations/instance_train.json"] = files, [[root / "images", root]] * 2
    if (root / "train" / "_annotations.coco.json").is_file():
        val = "val" if (root / "val" / "_annotations.coco.json").is_file() else "valid"
        files = [root / name / "_annotations.coco.json" for name in ("train", val)]
        found["train/_annotations.coco.json"] = files, [[file.parent, root] for file in files]
    if not found:
        raise UserError(
            f"{root}: no dataset in a known layout (annotations/instances_train2017.json with train2017/, "
            "annotations/instance_train.json with images/, or train/_annotations.coco.json); "
            "name the files with --train-json, --val-json and --images"
        )
    if len(found) > 1:
        raise UserError(f"{root}: has {' and '.join(found)}; choose with --train-json, --val-json and --images")
    files, places = next(iter(found.values()))
    if not files[1].is_file():
        raise UserError(
            f"{files[1]}: missing; {files[0]} is there, and the pictures to evaluate on need annotations too "
            "(or name the files with --train-json and --val-json)"
        )
    return files, places


def _named(root: Path | None, train_json: Path | None, val_json: Path | None) -> Sources:
    if train_json is None or val_json is None:
        raise UserError("--train-json and --val-json go together; give both")
    files = []
    for file in (train_json, val_json):
        inside = root / file if root else file
        files.append(inside if not file.is_file() and inside.is_file() else file)
    near = [
        [file.parent, *([root, root / "images"] if root else []), file.parent.parent, file.parent.parent / "images"]
        for file in files
    ]
    return files, near


def _with_classes_of(train: Split, val: Split) -> Split:
    """`val` with its classes taken by name from those of `train`."""
    if val.classes == train.classes:
        return val
    unknown = [name for name in val.classes if name not in train.classes]
    if unknown:
        raise UserError(
            f"{val.json_path}: categories: {', '.join(unknown)} is not among the classes of {train.json_path} "
            f"({', '.join(train.classes)}); both files must have the same categories"
        )
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


# The file


def _parse(path: Path) -> dict[str, Any]:
    try:
        text = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    try:
        tree = orjson.loads(text.removeprefix(b"\xef\xbb\xbf"))
    except orjson.JSONDecodeError as error:
        end = " (the file ends there: is it cut off?)" if error.pos >= len(error.doc.rstrip()) else ""
        raise UserError(f"{path}: line {error.lineno} column {error.colno}: not valid JSON: {error.msg}{end}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path}: must be an object with the keys images, annotations and categories")
    for key in ("images", "annotations", "categories"):
        if not isinstance(tree.get(key), list):
            raise UserError(f"{path}: {key}: must be a list; is this a file of COCO instance annotations?")
    return tree


def _entries(tree: Mapping[str, Any], key: str, findings: Findings) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, entry) of each object under `key`."""
    for index, entry in enumerate(tree[key]):
        if isinstance(entry, dict):
            yield f"{key}[{index}] id {entry.get('id')}", entry
        else:
            findings.error("object", f"{key}[{index}]: must be an object")


def _is_id(value: Any) -> TypeGuard[int]:
    return type(value) is int


def _classes(tree: Mapping[str, Any], findings: Findings) -> dict[int, str]:
    """Category id -> name, in the order of the ids."""
    classes: dict[int, str] = {}
    parents = {str(c.get("supercategory")) for c in tree["categories"] if isinstance(c, dict)}
    used = {a.get("category_id") for a in tree["annotations"] if isinstance(a, dict) and _is_id(a.get("category_id"))}
    for place, category in _entries(tree, "categories", findings):
        number, name = category.get("id"), category.get("name")
        if not _is_id(number):
            findings.error("category id", f"{place}: id must be an integer")
        elif number in classes:
            findings.error("category id twice", f"{place}: there is another category with this id; give each its own")
        elif not isinstance(name, str) or not name.strip():
            findings.error("category name", f"{place}: name must be a text")
        elif name in classes.values():
            findings.error("name twice", f"{place}: there is another category named {name}; make them one")
        elif category.get("supercategory") == "none" and name in parents and number not in used:
            findings.note("categories that only group others (left out)", name)
        else:
            classes[number] = name
    findings.check()
    if not classes:
        raise UserError(f"{findings.origin}: categories: empty; there must be at least one class")
    return dict(sorted(classes.items()))


# Pictures


@dataclass(frozen=True, slots=True)
class _Turn:
    """The annotations of a picture are for its stored pixels, not for the displayed ones."""

    orientation: int
    stored: tuple[int, int]


def _pictures(
    tree: Mapping[str, Any], findings: Findings, *, folders: Sequence[Path], root: Path
) -> tuple[dict[int, Picture], dict[int, _Turn]]:
    """Pictures by id, without annotations, and those whose annotations have to be turned."""
    entries: dict[int, tuple[str, dict[str, Any], Path]] = {}
    for place, entry in _entries(tree, "images", findings):
        number = entry.get("id")
        if not _is_id(number):
            findings.error("image id", f"{place}: id must be an integer")
        elif number in entries:
            findings.error("image id twice", f"{place}: there is another image with this id; give each its own")
        elif (path := _locate(entry.get("file_name"), place, findings, folders=folders, root=root)) is not None:
            entries[number] = place, entry, path
    findings.check()
    if not entries:
        raise UserError(f"{findings.origin}: images: empty; there must be at least one picture")

    pictures, turns = {}, {}
    with ThreadPoolExecutor(HEADER_THREADS) as threads:
        headers = threads.map(_header, (path for _, _, path in entries.values()))
        for (number, (place, entry, path)), header in zip(entries.items(), headers, strict=True):
            if isinstance(header, UserError):
                findings.error("unreadable", f"{place}: {header}")
                continue
            height, width = header.displayed
            turn = _compare_sizes(entry, place, header, findings)
            if turn:
                turns[number] = turn
            pictures[number] = Picture(number, path, entry["file_name"], height, width, [])
    findings.check()
    return pictures, turns


def _header(path: Path) -> Header | UserError:
    try:
        return read_header(path)
    except UserError as error:
        return error


def _locate(name: Any, place: str, findings: Findings, *, folders: Sequence[Path], root: Path) -> Path | None:
    if not isinstance(name, str) or not name or "\0" in name:
        findings.error("file name", f"{place}: file_name must be a text")
        return None
    # Files written on Windows separate folders by backslashes.
    for spelled in dict.fromkeys((name, name.replace("\\", "/"))):
        outside = 0
        for folder in folders:
            # By name, not by where links lead: folders of pictures often are links.
            path = Path(os.path.normpath(folder / spelled))
            if not Path(os.path.abspath(path)).is_relative_to(os.path.abspath(root)):  # noqa: PTH100
                outside += 1
            elif path.is_file():
                return path
    if outside == len(folders):
        findings.error("outside", f"{place}: file_name {name} leads out of {root}; move the picture into it")
    else:
        looked = ", ".join(str(folder) for folder in folders)
        findings.error("missing", f"{place}: picture {name} is missing (looked in {looked})")
    return None


def _compare_sizes(entry: Mapping[str, Any], place: str, header: Header, findings: Findings) -> _Turn | None:
    declared = entry.get("height"), entry.get("width")
    if declared in ((None, None), header.displayed):
        return None
    if declared == header.stored:
        findings.note(
            "pictures that EXIF turns and whose annotations are for the unturned pixels (annotations turned as well)",
            entry["file_name"],
        )
        return _Turn(header.orientation, header.stored)
    height, width = header.displayed
    findings.error(
        "size",
        f"{place}: {entry['file_name']} is {width} x {height} pixels, but width and height say "
        f"{declared[1]} x {declared[0]}; were the pictures resized after annotation?",
    )
    return None


# Annotations


def _annotations(
    tree: Mapping[str, Any],
    findings: Findings,
    *,
    pictures: Mapping[int, Picture],
    classes: Mapping[int, str],
    turns: Mapping[int, _Turn],
) -> int:
    """Check the annotations and put them into their pictures; returns the number of objects."""
    indices = {number: index for index, number in enumerate(classes)}
    ids: set[int] = set()
    count = objects = 0
    for place, entry in _entries(tree, "annotations", findings):
        count += 1
        number, picture_id, category = entry.get("id"), entry.get("image_id"), entry.get("category_id")
        crowd = entry.get("iscrowd")
        if not _is_id(picture_id) or picture_id not in pictures:
            findings.error("image_id", f"{place}: image_id {picture_id} is not the id of an image in this file")
        elif not _is_id(category) or category not in indices:
            findings.error("category_id", f"{place}: category_id {category} is not the id of a category in this file")
        elif crowd not in (0, 1, None):
            findings.error("iscrowd", f"{place}: iscrowd must be 0 or 1 (is: {crowd})")
        elif number is not None and not _is_id(number):
            findings.error("annotation id", f"{place}: id must be an integer")
        elif number in ids:
            findings.error(
                "annotation id twice", f"{place}: there is another annotation with this id; give each its own"
            )
        else:
            if number is None:
                number = -count  # Nothing but messages refers to it.
            ids.add(number)
            picture = pictures[picture_id]
            try:
                shape = _shape(entry.get("segmentation"), picture, turns.get(picture_id))
            except MaskError as error:
                findings.error("segmentation", f"{place}: {error}")
                continue
            if shape is None:
                findings.note("annotations whose mask is empty (left out)", place)
                continue
            area = entry.get("area")
            if isinstance(area, bool) or not isinstance(area, (int, float)) or not 0 < area < math.inf:
                area = rle_area(segmentation_to_rle(shape[0], (picture.height, picture.width)))
            objects += not crowd
            picture.annotations.append(
                Annotation(number, indices[category], shape[1], shape[0], float(area), bool(crowd))
            )
    findings.check()
    return objects


def _shape(value: Any, picture: Picture, turn: _Turn | None) -> tuple[Segmentation, Box] | None:
    """The segmentation on the displayed picture and the box around it; None where it holds no pixel.

    Raises MaskError.
    """
    size = turn.stored if turn else (picture.height, picture.width)
    if isinstance(value, Mapping):
        rle = parse_rle(value, size)
        if turn:
            rle = mask_to_rle(upright(rle_to_mask(rle), turn.orientation))
        box = rle_box(rle)
        return (rle, box) if box[2] else None
    # No segmentation, or an empty one, is how box annotations look.
    polygons = parse_polygons([] if value is None else value, size)
    if turn:
        polygons = [_turned(polygon, turn) for polygon in polygons]
    height, width = picture.height, picture.width
    if not polygons:
        return None
    points = polygons[0] if len(polygons) == 1 else np.concatenate(polygons)
    x, y = points[0::2], points[1::2]
    x1, y1, x2, y2 = float(x.min()), float(y.min()), float(x.max()), float(y.max())
    inside = x1 >= 0 and y1 >= 0 and x2 <= width and y2 <= height
    if not inside or max(map(_area, polygons)) < SMALL_AREA:
        if not rle_area(segmentation_to_rle(polygons, (height, width))):
            return None
        x1, y1, x2, y2 = max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))
    return polygons, (x1, y1, x2, y2)


def _area(polygon: Polygon) -> float:
    x, y = polygon[0::2], polygon[1::2]
    return abs(float(x[:-1] @ y[1:] - x[1:] @ y[:-1] + x[-1] * y[0] - x[0] * y[-1])) / 2


def _turned(polygon: Polygon, turn: _Turn) -> Polygon:
    return upright_points(polygon.reshape(-1, 2), turn.orientation, turn.stored).ravel()
