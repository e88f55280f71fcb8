"""A mended copy of a dataset: what can be mended is, what cannot is left out, and all of it is written down."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from toolkit.data.findings.check import Checked, Stage, check_sources, quietly
from toolkit.data.findings.file import File, read_tree
from toolkit.data.findings.statistics import plain_name
from toolkit.data.layouts import Source, find_sources
from toolkit.data.mend import Frame, box_and_area, mend
from toolkit.errors import UserError

# Entries that are left out for what else was found of them.
_LOST_PICTURES = ("image-duplicate",)
_LOST_ANNOTATIONS = ("annotation-duplicate",)
# Annotations whose box and area are measured again, and those whose mask is drawn again.
_RECOUNTED = (
    *("bbox-missing", "bbox-invalid", "bbox-corners", "bbox-mismatch"),
    *("area-missing", "area-invalid", "area-mismatch"),
)
_REDRAWN = (
    *("polygon-few-points", "polygon-degenerate", "polygon-outside", "polygon-crossing", "mask-outside", "mask-empty"),
    *("segmentation-missing", "segmentation-type", "polygon-not-numbers", "polygon-odd", "polygon-far-outside"),
    *("outline-too-long", "rle-malformed", "rle-size", "rle-sum"),
)


@dataclass
class Repair:
    """What was done."""

    log: Path
    changed: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[dict[str, Any]] = field(default_factory=list)
    remaining: list[dict[str, Any]] = field(default_factory=list)

    def counts(self) -> dict[str, int]:
        """How much."""
        return {name: len(getattr(self, name)) for name in ("changed", "left_out", "remaining")}

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {name: getattr(self, name) for name in ("changed", "left_out", "remaining")}


def repair(checked: Checked, sources: Sequence[Source], out: Path, *, stage: Stage = quietly) -> Repair:
    """Write a mended copy of a dataset that was checked into the new folder `out`, in PaddleX's layout.

    `out/repair.json` lists every change, all that was left out, and the findings that remain.

    Raises UserError if an annotation file cannot be read, or if nothing is left to train on or to evaluate on.
    """
    for source in sources:
        if source.name not in checked.files:
            raise UserError(f"{source.json_path}: cannot be mended: it cannot be read; see its error")
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    result = Repair(out / "repair.json")
    try:
        partial.joinpath("annotations").mkdir(parents=True)
        classes: dict[str, dict[str, Any]] = {}
        for source in sources:
            with stage(f"{source.name}: repair") as advance:
                mender = _Mender(checked, checked.files[source.name], result)
                tree = mender.mend(read_tree(source), classes)
                if not any(not a["iscrowd"] for a in tree["annotations"]):
                    raise UserError(f"{source.json_path}: cannot be mended: no annotation would be left")
                for done, (path, name) in enumerate(mender.copies, 1):
                    target = partial / "images" / name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(path, target)
                    advance(done, len(mender.copies))
                content = orjson.dumps(tree)
                partial.joinpath("annotations", f"instance_{source.name}.json").write_bytes(content)
        result.remaining = _remaining(partial, out, stage)
        log = orjson.dumps(result.as_dict(), option=orjson.OPT_INDENT_2, default=str)
        partial.joinpath("repair.json").write_bytes(log)
        os.replace(partial, out)  # noqa: PTH105
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return result


def _remaining(folder: Path, out: Path, stage: Stage) -> list[dict[str, Any]]:
    """Errors and warnings of the mended copy, under its name to be."""
    again = check_sources(find_sources(folder), stage=stage).findings
    found = [finding.as_dict() for finding in again if finding.code.severity != "note"]
    return [{k: v.replace(str(folder), str(out)) if isinstance(v, str) else v for k, v in f.items()} for f in found]


class _Mender:
    """Mends one annotation file."""

    def __init__(self, checked: Checked, file: File, result: Repair) -> None:
        self.file, self.result = file, result
        self.findings = checked.findings
        self.copies: list[tuple[Path, str]] = []
        """Pictures and the names that they get."""
        self._in_both = _train_pictures_in_val(checked) if file.split == "train" else set()

    def mend(self, tree: dict[str, Any], classes: dict[str, dict[str, Any]]) -> dict[str, Any]:
        """The tree without what is wrong in it.

        Args:
            classes: the categories of train by their plain names; filled for train, used for val.
        """
        categories = self._categories(tree["categories"], classes)
        images, frames = self._images(tree["images"])
        annotations = self._annotations(tree["annotations"], categories, images, frames)
        info = {key: value for key, value in tree.items() if key in ("info", "licenses")}
        kept = list(frames.values())
        return {
            **info,
            "images": [f.entry for f in kept],
            "annotations": annotations,
            "categories": [*classes.values()],
        }

    def _changed(self, section: str, row: int, number: Any, what: str) -> None:
        self.result.changed.append(self._line(section, row, number, what))

    def _left_out(self, section: str, row: int, number: Any, why: str) -> None:
        self.result.left_out.append(self._line(section, row, number, why))

    def _line(self, section: str, row: int, number: Any, what: str) -> dict[str, Any]:
        return {"split": self.file.split, "path": f"{section}[{row}]", "id": number, "what": what}

    def _rows(self, *codes: str) -> set[int]:
        return {row for code in codes for row in self.findings.rows(code, self.file)}

    def _categories(self, entries: list[Any], classes: dict[str, dict[str, Any]]) -> dict[Any, int]:
        """Category id by key of the id in the file."""
        groups = self._rows("category-group")
        ids: dict[Any, int] = {}
        taken = {c["id"] for c in classes.values()} | {_key(e.get("id")) for e in entries if isinstance(e, dict)}
        for row, entry in enumerate(entries):
            number = entry.get("id") if isinstance(entry, dict) else None
            if not isinstance(entry, dict):
                self._left_out("categories", row, number, "is no object")
                continue
            name = entry.get("name")
            clean = _clean(name) or f"class {number}"
            if row in groups:
                self._left_out("categories", row, number, f"{name} only groups others")
                continue
            plain = plain_name(clean)
            key = _key(number)
            if plain in classes:
                kept = classes[plain]
                if kept["name"] != name or (kept["id"] != number and self.file.split == "train"):
                    self._changed("categories", row, number, f"{name!r} made one with {kept['name']!r}")
            elif self.file.split != "train":
                self._left_out("categories", row, number, f"{name!r} is not among the classes of train")
                continue
            else:
                new = key if isinstance(key, int) and key not in ids else _free(taken)
                if (new, clean) != (number, name):
                    self._changed("categories", row, number, f"id {new}, name {clean!r}")
                classes[plain] = {**entry, "id": new, "name": clean}
            ids.setdefault(key, classes[plain]["id"])
        return ids

    def _images(self, entries: list[Any]) -> tuple[dict[Any, int], dict[int, Frame]]:
        """Row of the image by key of its id in the file, and what is known of each row that stays."""
        by_key: dict[Any, int] = {}
        frames: dict[int, Frame] = {}
        by_path: dict[str, int] = {}
        lost = self._rows(*_LOST_PICTURES)
        mismatched = {f.row: f.values for f in self._found("image-size-mismatch")}
        taken = {_key(e.get("id")) for e in entries if isinstance(e, dict)}
        used: set[int] = set()
        names: set[str] = set()
        for row, entry in enumerate(entries):
            number = entry.get("id") if isinstance(entry, dict) else None
            path = self.file.files[row]
            why = ""
            if not isinstance(entry, dict) or path is None:
                why = "its picture cannot be found"
            elif row in lost:
                why = "is there twice"
            elif row in self._in_both:
                why = "is in val too"
            elif row not in mismatched and not self.file.size[row].all():
                why = "its picture cannot be read"
            key = _key(number)
            if why:
                self._left_out("images", row, number, why)
                continue
            assert path is not None
            if str(path) in by_path:
                by_key.setdefault(key, by_path[str(path)])
                self._changed("images", row, number, f"made one with images[{by_path[str(path)]}]")
                continue
            by_path[str(path)] = row
            new = key if isinstance(key, int) and key not in used else _free(taken)
            used.add(new)
            frame = self._frame(row, mismatched.get(row))
            name = _unique(f"{self.file.split}/{self._inner_name(path)}", names)
            size = {"height": frame.size[0], "width": frame.size[1]}
            frame.entry = {**entry, "id": new, "file_name": name, **size}
            changes = [f"{k} {entry.get(k)!r} -> {v!r}" for k, v in (("id", new), *size.items()) if entry.get(k) != v]
            if changes:
                self._changed("images", row, number, ", ".join(changes))
            by_key.setdefault(key, row)
            frames[row] = frame
            self.copies.append((path, name))
        return by_key, frames

    def _found(self, code: str) -> list[Any]:
        return [
            f for found in self.findings.found if found.code.name == code and found.file is self.file for f in found
        ]

    def _frame(self, row: int, mismatch: dict[str, Any] | None) -> Frame:
        if mismatch is None:
            height, width = (int(side) for side in self.file.frame[row])
            size = (int(self.file.size[row, 0]), int(self.file.size[row, 1]))
            return Frame(stored=(height, width), size=size, orientation=int(self.file.orientation[row]))
        size = (mismatch["height"], mismatch["width"])
        declared = (mismatch["declared_height"], mismatch["declared_width"])
        if all(type(side) is int and 0 < side < 2**16 for side in declared):
            scale = size[0] / declared[0], size[1] / declared[1]
            if abs(scale[0] / scale[1] - 1) < 0.01:
                return Frame(stored=declared, size=size, scale=(scale[1], scale[0]))
        return Frame(stored=size, size=size)

    def _inner_name(self, path: Path) -> str:
        for folder in self.file.source.folders:
            base = Path(os.path.normpath(folder))
            if path.is_relative_to(base):
                return path.relative_to(base).as_posix()
        return path.name

    def _annotations(
        self, entries: list[Any], categories: dict[Any, int], images: dict[Any, int], frames: dict[int, Frame]
    ) -> list[dict[str, Any]]:
        lost = self._rows(*_LOST_ANNOTATIONS)
        redrawn, recounted = self._rows(*_REDRAWN), self._rows(*_RECOUNTED)
        crossing = self._rows("polygon-crossing")
        taken = {_key(e.get("id")) for e in entries if isinstance(e, dict)}
        used: set[int] = set()
        kept = []
        for row, entry in enumerate(entries):
            number = entry.get("id") if isinstance(entry, dict) else None
            entry = entry if isinstance(entry, dict) else {}
            image = images.get(_key(entry.get("image_id")))
            category = categories.get(_key(entry.get("category_id")))
            crowd = _flag(entry.get("iscrowd"))
            frame = frames.get(-1 if image is None else image)
            why = next(
                (
                    reason
                    for reason, true in {
                        "is no object": not entry,
                        "its picture is not there": frame is None,
                        "its category is not there": category is None,
                        "iscrowd is neither 0 nor 1": crowd is None,
                        "is there twice": row in lost,
                    }.items()
                    if true
                ),
                None,
            )
            if why or frame is None:
                self._left_out("annotations", row, number, why or "")
                continue
            segmentation, changes = entry.get("segmentation"), []
            doubtful = row in redrawn or not frame.plain or self.file.image[row] != image or not self.file.measured[row]
            if doubtful:
                segmentation, what = mend(segmentation, frame, crossing=row in crossing)
                if segmentation is None:
                    self._left_out("annotations", row, number, what)
                    continue
                changes += [what] if what else []
            key = _key(number)
            new = key if isinstance(key, int) and key not in used else _free(taken)
            used.add(new)
            fixed = {"id": new, "image_id": frame.entry["id"], "category_id": category, "iscrowd": crowd}
            changes += [f"{k} {entry.get(k)!r} -> {v!r}" for k, v in fixed.items() if not _same(entry.get(k), v)]
            if doubtful or row in recounted:
                box, area = box_and_area(segmentation, frame.size)
                changes += [f"{k} {entry.get(k)!r} -> {v!r}" for k, v in (("bbox", box), ("area", area))]
                fixed |= {"bbox": box, "area": area}
            kept.append({**entry, **fixed, "segmentation": segmentation})
            if changes:
                self._changed("annotations", row, number, ", ".join(changes))
        return kept


def _train_pictures_in_val(checked: Checked) -> set[int]:
    """Rows of train's images that val has too, unless that is most of them: then the split was meant so."""
    train = checked.files["train"]
    names = train.column("images", "file_name")
    shared = {f.values["other"] for f in checked.findings if f.code.name == "image-in-both-splits"}
    rows = {row for row, name in enumerate(names) if isinstance(name, str) and name in shared}
    return rows if 2 * len(rows) < len(names) else set()


def _key(value: Any) -> Any:
    """What ids are compared by: a number, however it is written, else the value itself."""
    if isinstance(value, bool):
        return repr(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**63:
        return int(value)
    if isinstance(value, str) and value.strip().lstrip("-").isdecimal() and len(value) < 19:
        return int(value)
    return value if isinstance(value, int) and abs(value) < 2**63 else repr(value)


def _free(taken: set[Any]) -> int:
    """A new id."""
    new = max((key for key in taken if isinstance(key, int) and key < 2**53), default=0) + 1
    taken.add(new)
    return new


def _clean(name: Any) -> str:
    """A name without what is not seen of it; a number in words."""
    text = str(name) if isinstance(name, (str, int, float)) else ""
    return " ".join("".join(c for c in text if c.isprintable() or c.isspace()).split())


def _flag(value: Any) -> int | None:
    """`iscrowd` as 0 or 1."""
    known = {None: 0, 0: 0, 1: 1, "0": 0, "1": 1, "false": 0, "true": 1}
    try:
        return known.get(value.lower() if isinstance(value, str) else value)
    except TypeError:
        return None


def _same(given: Any, value: Any) -> bool:
    return type(given) is type(value) and given == value


def _unique(name: str, names: set[str]) -> str:
    stem, suffix = os.path.splitext(name)  # noqa: PTH122
    number = 2
    while name in names:
        name, number = f"{stem}-{number}{suffix}", number + 1
    names.add(name)
    return name
