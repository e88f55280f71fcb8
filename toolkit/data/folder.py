"""Dataset folders that are written: new, whole or not at all, in the layout that training takes."""

from __future__ import annotations

import os
import posixpath
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from toolkit.data.coco import Annotation, Picture, Split
from toolkit.errors import UserError


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder that takes the name `out` when the block ends well, and is gone when it does not.

    Raises UserError if there is something at `out`, or if writing fails.
    """
    if out.exists() or out.is_symlink():
        raise UserError(f"{out}: exists already; remove it, or choose another folder")
    new = out.absolute().with_name(f".{out.absolute().name}.new")
    try:
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        yield new
        new.rename(out)
    except OSError as error:
        raise UserError(f"{error.filename or out}: {error.strerror or error}; nothing is left of {out}") from None
    finally:
        shutil.rmtree(new, ignore_errors=True)


def write_coco(parts: Sequence[Split], folder: Path, *, link: bool = False) -> None:
    """Write `images/` and an `annotations/instance_<part>.json` for each part into `folder`.

    Args:
        link: give the pictures a second name instead of copying them.

    Raises UserError if linking is not possible.
    """
    names = file_names(parts)
    for part in parts:
        write_json(folder / "annotations" / f"instance_{part.name}.json", coco_tree(part, names))
    place_pictures(names, folder / "images", link=link)


def write_json(path: Path, tree: Any) -> None:
    """Write `tree` to a file in a folder that need not exist."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(orjson.dumps(tree, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE))


def coco_tree(part: Split, names: dict[Path, str]) -> dict[str, Any]:
    """The content of a COCO file; `names` are the file names of the pictures."""
    extra = part.category_extra or ({},) * len(part.classes)
    return {
        **part.extra,
        "images": [
            {**p.extra, "id": p.id, "file_name": names[p.path], "height": p.height, "width": p.width}
            for p in part.pictures
        ],
        "annotations": [_entry(a, picture, part) for picture in part.pictures for a in picture.annotations],
        "categories": [
            {**more, "id": number, "name": name}
            for number, name, more in zip(part.category_ids, part.classes, extra, strict=True)
        ],
    }


def _entry(annotation: Annotation, picture: Picture, part: Split) -> dict[str, Any]:
    x1, y1, x2, y2 = annotation.bbox
    shape = annotation.segmentation
    return {
        **annotation.extra,
        "id": annotation.id,
        "image_id": picture.id,
        "category_id": part.category_ids[annotation.category],
        "segmentation": shape if isinstance(shape, dict) else [np.ascontiguousarray(p) for p in shape],
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": annotation.area,
        "iscrowd": int(annotation.iscrowd),
    }


def file_names(parts: Sequence[Split], *, by_stem: bool = False) -> dict[Path, str]:
    """A file name for each picture, its own where no other has it, whatever the case of its letters.

    Args:
        by_stem: names must differ in more than their ending.
    """
    names: dict[Path, str] = {}
    taken: set[str] = set()
    for part in parts:
        for picture in part.pictures:
            if picture.path in names:
                continue
            own = _inside(picture.file_name)
            stem, ending = posixpath.splitext(own)
            spelled, number = own, 1
            while (key := (posixpath.splitext(spelled)[0] if by_stem else spelled).casefold()) in taken:
                number += 1
                spelled = f"{stem}_{number}{ending}"
            taken.add(key)
            names[picture.path] = spelled
    return names


def _inside(name: str) -> str:
    """`name` with forward slashes, and without what leads out of a folder."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    return "/".join(parts[1:] if parts[0].endswith(":") and len(parts) > 1 else parts)


def place_pictures(names: dict[Path, str], folder: Path, *, link: bool = False) -> None:
    """Copy or hard-link each picture to its name in `folder`.

    Raises UserError if linking is not possible.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for source, name in names.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not link:
            shutil.copyfile(source, target)
            continue
        try:
            os.link(source.resolve(), target)
        except OSError as error:
            raise UserError(f"{source}: cannot be linked ({error.strerror}); leave out --link") from None
