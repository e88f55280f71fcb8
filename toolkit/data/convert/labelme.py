"""LabelMe: a JSON file beside each picture (https://github.com/wkentaro/labelme).

Polygons, rectangles, circles, oriented rectangles and masks become instances; those of one label and `group_id` are
parts of one. Lines, line strips and points enclose nothing and are left out, as is the label `__ignore__`.
"""

from __future__ import annotations

import base64
import binascii
import io
import math
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
from PIL import Image

from toolkit.data.coco import Annotation, Picture, Split
from toolkit.data.convert.common import (
    ALL,
    ENDINGS,
    Notes,
    Sheet,
    beside,
    checked,
    class_names,
    make_parts,
    name_below,
    parse_json,
    part_of,
)
from toolkit.data.folder import file_names, place_pictures, write_json
from toolkit.data.masks import (
    Crop,
    MaskError,
    Polygon,
    Rle,
    Segmentation,
    circle_to_polygon,
    crop_to_rle,
    mask_to_rle,
    parse_polygons,
    rle_to_crop,
    rle_to_mask,
    segmentation_to_mask,
)
from toolkit.errors import UserError

VERSION = "5.5.0"
"""The version of LabelMe that is said to have written a file: the first whose masks and flags are those used here."""
IGNORED = ("__ignore__", "_background_")
CROWD = "iscrowd"
"""The flag of a shape that is a crowd region."""
_POINTS = {"rectangle": (2, 4), "oriented_rectangle": (4,), "circle": (2,), "mask": (2,)}
_OPEN = ("point", "points", "line", "linestrip")
_CLASS_FILES = ("labels.txt", "class_names.txt", "classes.txt")


def recognizes(root: Path) -> bool:
    """Whether a JSON file of the folder has shapes."""
    if not root.is_dir():
        return False
    return any(b'"shapes"' in file.read_bytes() for file in sorted(root.rglob("*.json"))[:20])


def read(root: Path, *, scratch: Path) -> list[Split]:
    """The pictures that have a JSON file in the folder `root` or below.

    Folders `train`, `val` and `test` in it are the dataset's parts. Classes come in the order of `labels.txt`, else in
    that of the alphabet.

    Args:
        scratch: where pictures that lie inside a JSON file alone are written.

    Raises UserError.
    """
    notes = Notes(root)
    trees = {}
    for file in sorted(root.rglob("*.json")):
        tree = parse_json(file)
        if isinstance(tree, dict) and isinstance(tree.get("shapes"), list):
            trees[file] = tree
        else:
            notes.add("JSON files that are not LabelMe's (left out)", file.name)
    if not trees:
        raise UserError(f"{root}: no JSON file of LabelMe in this folder")
    classes = _classes(root, trees)

    parts: dict[str, list[Picture]] = {}
    folders = {file: file.relative_to(root).parts[0] for file in trees}
    divided = all(len(file.relative_to(root).parts) > 1 and part_of(folder) for file, folder in folders.items())
    for file, tree in trees.items():
        name = (divided and part_of(folders[file])) or ALL
        start = root / folders[file] if divided else root
        parts.setdefault(name, []).append(_picture(file, tree, classes, notes, root=start, scratch=scratch / name))
    _note_unlabelled(root, {picture.path for pictures in parts.values() for picture in pictures}, notes)
    return make_parts(parts, root, classes, notes)


def _classes(root: Path, trees: dict[Path, Any]) -> list[str]:
    used: dict[str, str] = {}
    for file, tree in trees.items():
        for number, shape in enumerate(tree["shapes"]):
            label = shape.get("label") if isinstance(shape, dict) else None
            if not isinstance(label, str) or not label.strip():
                raise UserError(f"{file}: shapes[{number}]: label must be a text")
            if label not in IGNORED and shape.get("shape_type", "polygon") not in _OPEN:
                used.setdefault(label, f"{file}: shapes[{number}]")
    for name in _CLASS_FILES:
        if (root / name).is_file():
            listed = class_names(root / name)
            for label, place in used.items():
                if label not in listed:
                    raise UserError(f"{place}: label {label} is not in {root / name}; correct one or the other")
            return listed
    return sorted(used)


def _picture(file: Path, tree: Any, classes: Sequence[str], notes: Notes, *, root: Path, scratch: Path) -> Picture:
    path, name = _located(file, tree, root=root, scratch=scratch)
    sheet = Sheet.open(path, declared=(tree.get("imageHeight"), tree.get("imageWidth")), place=str(file))
    if sheet.turned:
        notes.add("pictures that EXIF turns and whose annotations are for the unturned pixels (turned as well)", name)
    groups: dict[Any, list[int]] = {}
    for number, shape in enumerate(tree["shapes"]):
        kind, group = shape.get("shape_type") or "polygon", shape.get("group_id")
        if shape["label"] in IGNORED:
            notes.add("shapes labelled as nothing (left out)", f"{file.name}: shapes[{number}] {shape['label']}")
        elif kind in _OPEN:
            notes.add(
                "points and lines, which enclose nothing (left out)", f"{file.name}: shapes[{number}] {shape['label']}"
            )
        elif group is not None and not isinstance(group, (int, str)):
            raise UserError(f"{file}: shapes[{number}]: group_id must be an integer or null (is: {group})")
        else:
            crowd = _is_crowd(shape)
            key = (shape["label"], crowd, number, None) if group is None else (shape["label"], crowd, -1, group)
            groups.setdefault(key, []).append(number)
    annotations = []
    for (label, crowd, *_), numbers in groups.items():
        annotation = _instance(file, tree["shapes"], numbers, sheet, classes.index(label), crowd)
        if annotation is None:
            notes.add("shapes whose mask is empty (left out)", f"{file.name}: shapes[{numbers[0]}] {label}")
        annotations.append(annotation)
    return sheet.picture(name, annotations)


def _is_crowd(shape: Any) -> bool:
    flags = shape.get("flags")
    return isinstance(flags, dict) and flags.get(CROWD) is True


def _located(file: Path, tree: Any, *, root: Path, scratch: Path) -> tuple[Path, str]:
    """The picture of a JSON file, and its name from `root` on."""
    said = tree.get("imagePath")
    if not isinstance(said, str) or not said:
        raise UserError(f"{file}: imagePath must be a text")
    # Files written on Windows separate folders by backslashes.
    for spelled in dict.fromkeys((said, PureWindowsPath(said).as_posix())):
        path = file.parent / spelled
        if path.is_file() and path.suffix.lower() != ".json":
            return path, name_below(path, root, place=f"{file}: imagePath {said}")
    if near := beside(file.parent, file.stem):
        return near, near.relative_to(root).as_posix()
    if tree.get("imageData"):
        return _unpacked(file, tree["imageData"], root=root, scratch=scratch)
    raise UserError(f"{file}: imagePath: picture {said} is missing (looked in {file.parent})")


def _unpacked(file: Path, data: Any, *, root: Path, scratch: Path) -> tuple[Path, str]:
    content = _decoded(data, f"{file}: imageData")
    try:
        with Image.open(io.BytesIO(content)) as image:
            ending = {"JPEG": ".jpg"}.get(str(image.format), f".{image.format}".lower())
    except Exception:  # Pillow's plugins raise errors of many kinds.
        raise UserError(f"{file}: imageData: not a picture that can be read") from None
    name = file.relative_to(root).with_suffix(ending)
    path = scratch / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path, name.as_posix()


def _decoded(data: Any, place: str) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise UserError(f"{place}: must be a picture in base64") from None


def _instance(
    file: Path, shapes: Any, numbers: list[int], sheet: Sheet, category: int, crowd: bool
) -> Annotation | None:
    place = f"{file}: shapes[{numbers[0]}] {shapes[numbers[0]]['label']}"
    outlines: list[Polygon] = []
    masks: list[Rle] = []
    for number in numbers:
        here = f"{file}: shapes[{number}] {shapes[number]['label']}"
        shape = _outline(shapes[number], sheet.size, here)
        if isinstance(shape, dict):
            masks.append(shape)
        else:
            outlines.append(shape)
    try:
        outlines = [sheet.upright_polygon(p) for p in parse_polygons(outlines, sheet.size)]
    except MaskError as error:
        raise UserError(f"{place}: {error}") from None
    if not masks:
        return checked(category, outlines, sheet.header.displayed, place=place, crowd=crowd)
    whole = segmentation_to_mask(outlines, sheet.header.displayed)
    for mask in masks:
        whole |= sheet.upright(rle_to_mask(mask))
    return checked(category, mask_to_rle(whole), sheet.header.displayed, place=place, crowd=crowd)


def _outline(shape: Any, size: tuple[int, int], place: str) -> Polygon | Rle:
    kind = shape.get("shape_type") or "polygon"
    if kind != "polygon" and kind not in _POINTS:
        raise UserError(f"{place}: unknown shape_type {kind}; known are polygon, {', '.join((*_POINTS, *_OPEN))}")
    try:
        points = np.asarray(shape.get("points"), np.float64)
    except (TypeError, ValueError):
        points = np.empty(0)
    if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
        raise UserError(f"{place}: points must be a list of [x, y]")
    if kind == "polygon":
        if len(points) < 3:
            raise UserError(f"{place}: a polygon has at least 3 points (has: {len(points)})")
        return points.ravel()
    if len(points) not in _POINTS[kind]:
        raise UserError(f"{place}: a {kind} has {_POINTS[kind][0]} points (has: {len(points)})")
    if len(points) == 4:
        return points.ravel()
    (x1, y1), (x2, y2) = points.tolist()
    if kind == "rectangle":
        return np.array([x1, y1, x2, y1, x2, y2, x1, y2])
    if kind == "circle":
        return circle_to_polygon(x1, y1, math.hypot(x2 - x1, y2 - y1))
    return _mask(shape, int(x1), int(y1), size, place)


def _mask(shape: Any, x: int, y: int, size: tuple[int, int], place: str) -> Rle:
    """A bitmap whose first pixel lies at column `x` and row `y`; what leaves the picture is cut off."""
    try:
        with Image.open(io.BytesIO(_decoded(shape.get("mask"), f"{place}: mask"))) as image:
            bitmap = (np.asarray(image.convert("I" if image.mode.startswith("I") else "L")) != 0).astype(np.uint8)
    except UserError:
        raise
    except Exception:  # Pillow's plugins raise errors of many kinds.
        raise UserError(f"{place}: mask: not a picture that can be read") from None
    left, top = max(0, -x), max(0, -y)
    inside = bitmap[top : max(top, size[0] - y), left : max(left, size[1] - x)]
    return crop_to_rle(Crop(inside, max(x, 0), max(y, 0)), size)


def _note_unlabelled(root: Path, labelled: set[Path], notes: Notes) -> None:
    known = {path.resolve() for path in labelled}
    for path in sorted(root.rglob("*")):
        if path.suffix.lower() in ENDINGS and path.resolve() not in known:
            notes.add("pictures without a JSON file (left out)", path.relative_to(root).as_posix())


# Writing


def write(parts: Sequence[Split], folder: Path, *, link: bool = False) -> None:
    """Write pictures, a JSON file beside each, and `labels.txt` into `folder`; parts become folders of their names.

    Raises UserError if linking is not possible.
    """
    for one in parts:
        target = folder if one.name == ALL else folder / one.name
        names = file_names([one], by_stem=True)
        # COCO may list a picture twice.
        found: dict[Path, list[Annotation]] = {}
        for picture in one.pictures:
            found.setdefault(picture.path, []).extend(picture.annotations)
        for picture in one.pictures:
            name, annotations = Path(names[picture.path]), found[picture.path]
            tree = labelme_tree(
                name.name,
                (picture.height, picture.width),
                labels=[one.classes[a.category] for a in annotations],
                segmentations=[a.segmentation for a in annotations],
                crowds=[a.iscrowd for a in annotations],
            )
            write_json(target / name.with_suffix(".json"), tree)
        place_pictures(names, target, link=link)
    (folder / "labels.txt").write_text("".join(f"{name}\n" for name in parts[0].classes), encoding="utf-8")


def labelme_tree(
    image_path: str,
    size: tuple[int, int],
    *,
    labels: Sequence[str],
    segmentations: Sequence[Segmentation],
    crowds: Sequence[bool] | None = None,
    descriptions: Sequence[str] | None = None,
) -> dict[str, Any]:
    """The content of a LabelMe file.

    Polygons become polygons, joined by a `group_id` where an instance has several; RLE becomes a mask, pixel for pixel.

    Args:
        image_path: the picture, from the file's folder on.
        size: its height and width.
        labels, segmentations: of each instance.
        crowds: which of them are crowd regions, said by a flag; by default none.
        descriptions: what LabelMe shows beside each; by default nothing.
    """
    shapes = []
    groups = 0
    count = len(labels)
    for label, segmentation, crowd, description in zip(
        labels, segmentations, crowds or [False] * count, descriptions or [""] * count, strict=True
    ):
        common: dict[str, Any] = {
            "label": label,
            "group_id": None,
            "description": description,
            "flags": {CROWD: True} if crowd else {},
        }
        if isinstance(segmentation, dict):
            crop = rle_to_crop(segmentation)
            if not crop.mask.size:
                continue
            height, width = crop.mask.shape
            corners = [[crop.x, crop.y], [crop.x + width - 1, crop.y + height - 1]]
            shapes.append({**common, "points": corners, "shape_type": "mask", "mask": _encoded(crop)})
            continue
        if len(segmentation) > 1:
            groups += 1
            common["group_id"] = groups
        shapes += [
            {**common, "points": polygon.reshape(-1, 2).tolist(), "shape_type": "polygon", "mask": None}
            for polygon in segmentation
        ]
    return {
        "version": VERSION,
        "flags": {},
        "shapes": shapes,
        "imagePath": image_path,
        "imageData": None,
        "imageHeight": size[0],
        "imageWidth": size[1],
    }


def _encoded(crop: Crop) -> str:
    stream = io.BytesIO()
    Image.fromarray(crop.mask * 255).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode("ascii")
