"""What comes back from a review, taken into a copy of the dataset, with a log."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from toolkit.data.coco import Picture, Split, dataset_of
from toolkit.data.convert import reading, report, require_objects
from toolkit.data.convert.common import ALL, parse_json
from toolkit.data.folder import new_folder, write_coco, write_json
from toolkit.data.merge import merge_classes, unique_ids
from toolkit.errors import UserError
from toolkit.recipe import Data
from toolkit.weights.fetch import sha256_of

MANIFEST = "review.json"
LOG = "review_log.json"
NEW = "unlabelled"
"""The part of pictures that were not in the dataset."""
UNDECIDED = "?"
"""What a suggestion's label ends in until someone takes it, by removing the mark, or deletes it."""

_KEYS = {"data": dict, "pictures": list}


def merge_reviewed(folder: Path, out: Path, *, link: bool = False) -> list[dict[str, Any]]:
    """Write the dataset that `review_run` looked at, with what was corrected in `folder`, into the new folder `out`.

    Of a picture of the dataset the annotations are replaced; one without annotations comes into train. Files that are
    as they were written, which nobody has saved, change nothing; suggestions still marked are left out.

    Args:
        link: give the pictures a second name instead of copying them.

    Returns the log, an entry for each picture of the review, which is also written to `review_log.json` in `out`.

    Raises UserError for a folder that is no review, for a file that LabelMe would not write, or for a label that is
    not in `labels.txt`.
    """
    manifest = folder / MANIFEST
    if not manifest.is_file():
        raise UserError(f"{folder}: not a review (no {MANIFEST}); `seg-tune review` makes one")
    tree = parse_json(manifest)
    if not isinstance(tree, dict) or not all(isinstance(tree.get(key), kind) for key, kind in _KEYS.items()):
        raise UserError(f"{manifest}: must have {' and '.join(_KEYS)}, as `seg-tune review` wrote them")
    log: list[dict[str, Any]] = []
    with ExitStack() as stack:
        target = stack.enter_context(new_folder(out))
        parts = stack.enter_context(_dataset(tree["data"]))
        corrected = stack.enter_context(_corrected(folder, tree["pictures"], log))
        merged = require_objects(_with(parts, corrected, tree["pictures"], log), out)
        write_coco(merged, target, link=link)
        write_json(target / LOG, log)
    report(merged, out)
    return log


@contextmanager
def _dataset(data: Mapping[str, str]) -> Iterator[list[Split]]:
    if "path" in data and "train_json" not in data:
        with reading(Path(data["path"]), "coco") as parts:
            yield parts
        return
    dataset = dataset_of(Data.model_validate({"input_size": (1, 1), **data}))
    yield [unique_ids([part])[0] for part in merge_classes([dataset.train, dataset.val])]


@contextmanager
def _corrected(folder: Path, entries: Sequence[Mapping[str, Any]], log: list[dict[str, Any]]) -> Iterator[Split | None]:
    """The pictures whose files were saved, named as in the review; None where there are none."""
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        for entry in entries:
            file = folder / entry["file"]
            log.append({"file": entry["file"], "picture": entry["picture"], "part": entry["part"]})
            if not file.is_file():
                log[-1]["taken"] = "no: the file is gone"
            elif sha256_of(file) == entry["sha256"]:
                log[-1]["taken"] = "no: as it was written"
            else:
                log[-1] |= {"taken": "yes", "undecided": _decided(file, place)}
        if not any(line["taken"] == "yes" for line in log):
            yield None
            return
        (place / "labels.txt").write_bytes((folder / "labels.txt").read_bytes())
        with reading(place, "labelme") as [part]:
            yield part


def _decided(file: Path, place: Path) -> int:
    """Copy a file without suggestions that are still marked, its picture beside it; returns how many those are."""
    tree = parse_json(file)
    shapes = tree.get("shapes") if isinstance(tree, dict) else None
    if not isinstance(shapes, list) or not all(isinstance(shape, dict) for shape in shapes):
        raise UserError(f"{file}: not a file of LabelMe (no list of shapes)")
    kept = [shape for shape in shapes if not str(shape.get("label", "")).endswith(UNDECIDED)]
    picture = file.parent / str(tree.get("imagePath", ""))
    if picture.is_file():
        shutil.copyfile(picture, place / f"{file.stem}{picture.suffix}")
    named = {**tree, "shapes": kept, "imagePath": f"{file.stem}{picture.suffix}"}
    write_json(place / file.name, named)
    return len(shapes) - len(kept)


def _with(
    parts: Sequence[Split], corrected: Split | None, entries: Sequence[Mapping[str, Any]], log: list[dict[str, Any]]
) -> list[Split]:
    """The parts with the corrected pictures in their places; notes in the log what changed."""
    if corrected is None:
        return list(parts)
    # New classes come last, so that the others keep their places.
    first = max(number for part in parts for number in part.category_ids) + 1
    ids = tuple(range(first, first + len(corrected.classes)))
    *parts, corrected = merge_classes([*parts, dataclasses.replace(corrected, category_ids=ids)])
    lines = {Path(entry["file"]).stem: line for entry, line in zip(entries, log, strict=True)}
    fresh = _free_ids(parts)
    replaced: dict[tuple[str, str], Picture] = {}
    added = []
    for picture in corrected.pictures:
        line = lines[Path(picture.file_name).stem]
        line["after"] = _counts(picture, corrected.classes)
        picture = dataclasses.replace(
            picture,
            id=next(fresh),
            file_name=line["picture"],
            annotations=[dataclasses.replace(annotation, id=next(fresh)) for annotation in picture.annotations],
        )
        if line["part"] == NEW:
            added.append(picture)
        else:
            replaced[line["part"], line["picture"]] = picture
    result = []
    for part in parts:
        pictures = []
        for picture in part.pictures:
            new = replaced.pop((part.name, picture.file_name), None)
            if new is not None:
                line = next(line for line in log if (line["part"], line["picture"]) == (part.name, picture.file_name))
                line["before"] = _counts(picture, part.classes)
                picture = dataclasses.replace(picture, annotations=new.annotations)
            pictures.append(picture)
        more = added if part.name in ("train", ALL) else []
        result.append(dataclasses.replace(part, pictures=[*pictures, *more]))
    if replaced:
        part_name, name = next(iter(replaced))
        raise UserError(f"{name}: no longer in {part_name} of the dataset; the review was made of another one")
    return result


def _free_ids(parts: Sequence[Split]) -> Iterator[int]:
    """Ids that no picture and no annotation has, so that the others keep theirs."""
    pictures = [picture for part in parts for picture in part.pictures]
    used = [*(picture.id for picture in pictures), *(a.id for picture in pictures for a in picture.annotations)]
    return itertools.count(max(used, default=0) + 1)


def _counts(picture: Picture, classes: Sequence[str]) -> dict[str, int]:
    labels = [annotation.category for annotation in picture.annotations]
    return {name: labels.count(i) for i, name in enumerate(classes) if i in labels}
