"""Where a dataset's annotation files and pictures lie, in the layouts of COCO, PaddleX and Roboflow, or as named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from toolkit.errors import UserError


@dataclass(frozen=True)
class Source:
    """One split: its annotation file and where its pictures are looked for."""

    name: str
    """`train` or `val`."""
    json_path: Path
    folders: tuple[Path, ...]
    """Where file names may start from, tried in order."""
    root: Path
    """What no file name may lead out of."""


def find_sources(
    root: Path | None, *, train_json: Path | None = None, val_json: Path | None = None, images: Path | None = None
) -> tuple[Source, Source]:
    """The train and val files of the folder `root`, in one of the known layouts, or of the files named.

    The val file of a known layout may turn out to be missing.

    Args:
        train_json, val_json: annotation files of another layout, both or none.
        images: the folder that file names start from; by default the usual places beside the annotations.

    Raises UserError for a folder without a dataset.
    """
    if root is None and train_json is None:
        raise UserError("say which data to use with --data FOLDER, or with --train-json, --val-json and --images")
    for folder in (root, images):
        if folder is not None and not folder.is_dir():
            raise UserError(f"{folder}: no such folder")
    files, places = _named(root, train_json, val_json) if train_json or val_json else _discovered(root or Path())
    train, val = (
        Source(
            name,
            file,
            (images,) if images else tuple(folders),
            images or root or (file.parent.parent if file.parent.name == "annotations" else file.parent),
        )
        for name, file, folders in zip(("train", "val"), files, places, strict=True)
    )
    return train, val


Places = tuple[list[Path], Sequence[Sequence[Path]]]
"""The annotation files of train and val, and for each the folders that its file names may start from."""


def _discovered(root: Path) -> Places:
    found: dict[str, Places] = {}
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
    return next(iter(found.values()))


def _named(root: Path | None, train_json: Path | None, val_json: Path | None) -> Places:
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
