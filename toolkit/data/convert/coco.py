"""COCO instance JSON in any of the usual folders, with all that its entries say besides."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toolkit.data.coco import Split, load_split
from toolkit.data.convert.common import ALL, parse_json, part_of, read_bytes
from toolkit.data.merge import merge_classes
from toolkit.errors import UserError

_FEW = 10
"""JSON files in one folder, up to which they are looked into."""
_READ = {
    "images": {"id", "file_name", "height", "width"},
    "annotations": {"id", "image_id", "category_id", "segmentation", "bbox", "area", "iscrowd"},
    "categories": {"id", "name"},
}


def recognizes(root: Path) -> bool:
    """Whether there is a JSON file with COCO's keys in one of the usual places."""
    return bool(_files(root))


def read(root: Path, *, scratch: Path, images: Path | None = None) -> list[Split]:
    """The parts of the dataset in the folder, or in the one annotation file, `root`.

    Files are told apart by `train`, `val` or `test` in their name, or in that of their folder (Roboflow).

    Args:
        images: the folder that file names start from; by default the usual places.

    Raises UserError.
    """
    files = _files(root)
    if not files:
        raise UserError(f"{root}: no COCO file in this folder or in annotations/; name the file itself")
    named: dict[str, Path] = {}
    for file in files:
        name = part_of(file.parent.name if file.name.startswith("_") else file.stem) or ALL
        if name in named:
            raise UserError(f"{root}: both {named[name]} and {file} are there for {name}; name one of the two")
        named[name] = file
    order = ("train", "val", "test", ALL)
    return merge_classes([_part(name, named[name], root, images) for name in order if name in named])


def _files(root: Path) -> list[Path]:
    if root.is_file():
        return [root] if root.suffix == ".json" and _is_coco(root) else []
    found = sorted((root / "annotations").glob("instance*.json")) or sorted(root.glob("*/_annotations.coco.json"))
    if found:
        return found
    loose = [sorted(folder.glob("*.json")) for folder in (root, root / "annotations")]
    return [file for files in loose if len(files) <= _FEW for file in files if _is_coco(file)]


def _is_coco(file: Path) -> bool:
    text = read_bytes(file)
    return all(key in text for key in (b'"images"', b'"annotations"', b'"categories"'))


def _part(name: str, file: Path, root: Path, images: Path | None) -> Split:
    start = root if root.is_dir() else file.parent.parent if file.parent.name == "annotations" else file.parent
    # instances_train2017.json -> train2017
    own = file.stem.removeprefix("instances_").removeprefix("instance_")
    usual = [file.parent, *(start / s for s in (own, name, f"images/{own}", f"images/{name}", "images", "JPEGImages"))]
    folders = [images] if images else [*usual, start]
    split = load_split(file, folders, root=images or start, name=name, may_be_empty=True)
    return _with_extras(split, parse_json(file))


def _with_extras(split: Split, tree: Mapping[str, Any]) -> Split:
    """`split` with what `load_split` does not read."""
    extra = {
        key: {entry["id"]: {k: v for k, v in entry.items() if k not in read} for entry in tree[key] if "id" in entry}
        for key, read in _READ.items()
    }
    pictures = [
        dataclasses.replace(
            picture,
            extra=extra["images"][picture.id],
            annotations=[dataclasses.replace(a, extra=extra["annotations"].get(a.id, {})) for a in picture.annotations],
        )
        for picture in split.pictures
    ]
    return dataclasses.replace(
        split,
        pictures=pictures,
        extra={key: value for key, value in tree.items() if key not in _READ},
        category_extra=tuple(extra["categories"][number] for number in split.category_ids),
    )
