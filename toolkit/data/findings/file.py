"""An annotation file as columns: parsed at once, so that rules run over arrays instead of a million objects."""

from __future__ import annotations

import gc
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from toolkit.data.findings.record import Findings
from toolkit.data.layouts import Source
from toolkit.data.masks import MOST_PARTS, MaskError, parse_polygons

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

CHUNK = 16384
"""Annotations whose outlines become arrays together."""
ANY_SIZE = (2**40, 2**40)
REQUIRED = {"images": ("id", "file_name"), "annotations": ("image_id", "category_id"), "categories": ("id", "name")}

_POLYGONS = re.compile(rb'"segmentation"\s*:\s*(\[[-+0-9eE.,\s\[\]]*\])')
_HOLE = "\0"

Advance = Callable[[int, int], None]
"""Takes how many are done, and of how many."""


class File:
    """One annotation file.

    Rules fill in what later rules need: which entries are sound, which annotation belongs to what, sizes, masks.
    """

    def __init__(self, source: Source, tree: Mapping[str, list[Any]], findings: Findings) -> None:
        self.source = source
        self.split = source.name
        self.path = source.json_path
        self.sections: dict[str, list[dict[str, Any]]] = {}
        self.sound: dict[str, Flags] = {}
        """Which entries are objects with all keys that they need."""
        for section in ("categories", "images", "annotations"):
            self._take(section, tree[section], findings)
        images, annotations = len(self.sections["images"]), len(self.sections["annotations"])

        self.image_ids: Ints = np.zeros(images, np.int64)
        self.classes: dict[int, str] = {}
        """Names by category id, in the order of the ids."""
        self.category = np.full(annotations, -1)
        """Index of each annotation's class; -1 for none."""
        self.image = np.full(annotations, -1)
        """Index of each annotation's image; -1 for none."""
        self.crowd = np.zeros(annotations, np.bool_)

        self.files: list[Path | None] = [None] * images
        self.size = np.zeros((images, 2), np.int64)
        """Height and width of the upright picture; 0 where it is not known."""
        self.frame = np.zeros((images, 2), np.int64)
        """Height and width that the annotations are for: the same, or those of the unturned pixels."""
        self.orientation = np.ones(images, np.int64)
        """EXIF's number where annotations have to be turned, else 1."""

        self.outlines: Outlines | None = None
        self.refused = np.zeros(annotations, np.bool_)
        """Annotations whose segmentation breaks its format."""
        self.measured = np.zeros(annotations, np.bool_)
        """Annotations of which the following three are known."""
        self.empty = np.ones(annotations, np.bool_)
        """Annotations whose mask holds no pixel."""
        self.box = np.zeros((annotations, 4))
        """x1 y1 x2 y2 around the mask, in its frame."""
        self.area = np.zeros(annotations)
        """Square pixels of the mask."""

    def column(self, section: str, key: str) -> list[Any]:
        """The values under `key`, None where there is none."""
        return [entry.get(key) for entry in self.sections[section]]

    def picture_of(self, section: str, row: int) -> int | None:
        if section == "images":
            return row
        return int(self.image[row]) if section == "annotations" and self.image[row] >= 0 else None

    def _take(self, section: str, entries: list[Any], findings: Findings) -> None:
        sound = np.ones(len(entries), np.bool_)
        if set(map(type, entries)) - {dict}:
            strange = [row for row, entry in enumerate(entries) if not isinstance(entry, dict)]
            sound[strange] = False
            entries = [entry if isinstance(entry, dict) else {} for entry in entries]
        self.sections[section] = entries
        findings.add("entry-not-object", self, section, np.flatnonzero(~sound).tolist())
        whole = sound.copy()
        for key in REQUIRED[section]:
            if None in self.column(section, key):
                missing = [row for row, entry in enumerate(entries) if whole[row] and key not in entry]
                findings.add("key-missing", self, section, missing, key=key, name=key)
                sound[missing] = False
        self.sound[section] = sound


class Text:
    """The polygons of a file as they stand in it.

    As objects they need four times the room of the file, and the parser as much again for itself; so they are cut out,
    and parsed by and by.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._spans: list[tuple[int, int]] = []

    def tree(self) -> Any:
        """The file with holes in place of polygons, or None where that cannot be told from what is in the file.

        Raises orjson.JSONDecodeError.
        """
        return None if rb"\u0000" in self.data else orjson.loads(_POLYGONS.sub(self._cut, self.data))

    def fill(self, entries: Sequence[dict[str, Any]]) -> None:
        """Put the polygons of annotations back in.

        Raises orjson.JSONDecodeError.
        """
        holes = [
            (entry, self._spans[value[_HOLE]])
            for entry in entries
            if type(value := entry.get("segmentation")) is dict and _HOLE in value
        ]
        values = orjson.loads(b"[" + b",".join(self.data[first:last] for _, (first, last) in holes) + b"]")
        for (entry, _), value in zip(holes, values, strict=True):
            entry["segmentation"] = value

    def _cut(self, match: re.Match[bytes]) -> bytes:
        self._spans.append(match.span(1))
        return b'"segmentation":{"\\u0000":%d}' % (len(self._spans) - 1)


class Outlines:
    """The segmentations of a file.

    Annotation `owner[i]`, in ascending order, has the polygon `points[start[i]:start[i + 1]]`, which is the `part[i]`th
    of its list.
    """

    def __init__(self, file: File, text: Text | None, findings: Findings, advance: Advance) -> None:
        """Takes the segmentations out of the file's annotations: as arrays they need a tenth of the room."""
        annotations = file.sections["annotations"]
        self.rles: dict[int, Mapping[str, Any]] = {}
        points: list[Floats] = []
        lengths: list[Ints] = []
        owners: list[Ints] = []
        parts: list[Ints] = []
        for first in range(0, len(annotations), CHUNK):
            chunk = annotations[first : first + CHUNK]
            if text:
                text.fill(chunk)
            point, length, owner, part = self._read(file, chunk, first, findings)
            points.append(point)
            lengths.append(length)
            owners.append(owner)
            parts.append(part)
            advance(first + len(chunk), len(annotations))
        self.points: Floats = np.concatenate(points or [np.empty(0)]).reshape(-1, 2)
        lengths_of = np.concatenate(lengths or [np.empty(0, np.int64)])
        self.start: Ints = np.concatenate([[0], np.cumsum(lengths_of // 2)])
        self.owner: Ints = np.concatenate(owners or [np.empty(0, np.int64)])
        self.part: Ints = np.concatenate(parts or [np.empty(0, np.int64)])
        self.first: Ints = np.searchsorted(self.owner, np.arange(len(annotations) + 1))
        """The first polygon of each annotation."""

    def _read(
        self, file: File, chunk: Sequence[dict[str, Any]], first: int, findings: Findings
    ) -> tuple[Floats, Ints, Ints, Ints]:
        flat: list[Any] = []
        lengths: list[int] = []
        owners: list[int] = []
        parts: list[int] = []
        for row, entry in enumerate(chunk, first):
            value = entry.pop("segmentation", None)
            if type(value) is list:
                if len(value) == 1 and type(value[0]) is list and len(value[0]) >= 6:
                    flat.append(value[0])
                    lengths.append(len(value[0]))
                    owners.append(row)
                    parts.append(0)
                else:
                    for part, polygon in self._parts(file, value, row, findings):
                        flat.append(polygon)
                        lengths.append(len(polygon))
                        owners.append(row)
                        parts.append(part)
            elif isinstance(value, dict):
                self.rles[row] = value
            elif value is not None:
                self._refuse(file, value, row, findings)
        odd = [i for i, length in enumerate(lengths) if length % 2]
        if odd or not set(map(type, chain.from_iterable(flat))) <= {int, float}:
            kept = []
            for i, polygon in enumerate(flat):
                if len(polygon) % 2 or not set(map(type, polygon)) <= {int, float}:
                    if not file.refused[owners[i]]:
                        self._refuse(file, [[]] * parts[i] + [polygon], owners[i], findings)
                else:
                    kept.append(i)
            flat, lengths, owners, parts = ([column[i] for i in kept] for column in (flat, lengths, owners, parts))
        coordinates = list(chain.from_iterable(flat))
        return (
            np.array(coordinates, np.float64),
            np.array(lengths, np.int64),
            np.array(owners, np.int64),
            np.array(parts, np.int64),
        )

    def _parts(self, file: File, value: list[Any], row: int, findings: Findings) -> Iterator[tuple[int, list[Any]]]:
        if len(value) > MOST_PARTS or any(type(part) is not list for part in value):
            self._refuse(file, value, row, findings)
            return
        for part, polygon in enumerate(value):
            if len(polygon) >= 6 or len(polygon) % 2 or any(type(value) not in (int, float) for value in polygon):
                yield part, polygon
            else:
                findings.add("polygon-few-points", file, "annotations", [row], key="segmentation", part=part)

    def _refuse(self, file: File, value: Any, row: int, findings: Findings) -> None:
        file.refused[row] = True
        try:
            parse_polygons(value, ANY_SIZE)
            # Truth values pass for numbers there.
            error = MaskError("polygon-not-numbers", "polygon must be a flat list of numbers x1, y1, x2, y2, ...")
        except MaskError as broken:
            error = broken
        findings.add(error.code, file, "annotations", [row], key="segmentation", error=str(error))


def read_file(source: Source, findings: Findings, *, advance: Advance = lambda done, total: None) -> File | None:
    """Parse a file and its segmentations; None where it is not of COCO's form, which the findings then say.

    Args:
        advance: takes how many annotations have been read.
    """
    nothing = File(source, {"images": [], "annotations": [], "categories": []}, findings)
    data = _read(source.json_path, nothing, findings)
    if data is None:
        return None
    with _without_collector():
        text = Text(data)
        known = len(findings.found)
        try:
            tree = text.tree()
            if tree is not None:
                return _columns(source, tree, text, nothing, findings, advance)
        except orjson.JSONDecodeError:
            del findings.found[known:]
        tree = _parse(data, nothing, findings)
        return None if tree is None else _columns(source, tree, None, nothing, findings, advance)


def read_tree(source: Source) -> Any:
    """The file as it is, read as leniently as `read_file` does; None where it cannot be."""
    findings = Findings()
    nothing = File(source, {"images": [], "annotations": [], "categories": []}, findings)
    data = _read(source.json_path, nothing, findings)
    with _without_collector():
        return None if data is None else _parse(data, nothing, findings)


def _columns(
    source: Source, tree: Any, text: Text | None, nothing: File, findings: Findings, advance: Advance
) -> File | None:
    what = what_zh = ""
    if not isinstance(tree, dict):
        what = "must be an object with the keys images, annotations and categories"
        what_zh = "必须是含有 images、annotations 和 categories 的对象"
    elif key := next((k for k in ("images", "annotations", "categories") if not isinstance(tree.get(k), list)), None):
        what, what_zh = f"{key}: must be a list", f"{key} 必须是列表"
    if what:
        findings.add("json-not-coco", nothing, what=what, what_zh=what_zh)
        return None
    file = File(source, tree, findings)
    file.outlines = Outlines(file, text, findings, advance)
    return file


@contextmanager
def _without_collector() -> Iterator[None]:
    """Python looks for cycles again and again while millions of objects are made; there are none here."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _read(path: Path, nothing: File, findings: Findings) -> bytes | None:
    try:
        return path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    except FileNotFoundError:
        findings.add("file-missing", nothing)
    except OSError as error:
        findings.add("file-unreadable", nothing, error=error.strerror or error)
    return None


def _parse(data: bytes, nothing: File, findings: Findings) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        problem = error
    try:
        text, encoding = data.decode("utf-8"), ""
    except UnicodeDecodeError:
        text, encoding = _decode(data)
    count = 0

    def constant(name: str) -> float:
        nonlocal count
        count += 1
        return float(name)

    if encoding or re.search(rb"NaN|Infinity", data):
        try:
            tree = json.loads(text, parse_constant=constant)
        except (ValueError, RecursionError):
            pass
        else:
            if encoding:
                findings.add("json-encoding", nothing, encoding=encoding)
            if count:
                findings.add("json-nan", nothing, line=problem.lineno, column=problem.colno, count=count)
            return tree
    cut = problem.pos >= len(problem.doc.rstrip())
    end = " (the file ends there: is it cut off?)" if cut else ""
    findings.add("json-syntax", nothing, line=problem.lineno, column=problem.colno, error=f"{problem.msg}{end}")
    return None


def _decode(data: bytes) -> tuple[str, str]:
    """Text and its likely encoding."""
    guesses = ["utf-16"] if data[:2] in (b"\xff\xfe", b"\xfe\xff") else ["gb18030", "cp1252"]
    for encoding in guesses:
        with suppress(UnicodeDecodeError):
            return data.decode(encoding), encoding
    return data.decode("latin-1"), "latin-1"


# Columns


def integers(values: Sequence[Any]) -> tuple[Ints, Flags]:
    """The values that are integers of 64 bits, 0 for the others, and which those are."""
    if set(map(type, values)) <= {int}:
        try:
            return np.array(values, np.int64), np.ones(len(values), np.bool_)
        except OverflowError:
            pass
    sound = np.array([type(value) is int and -(2**63) <= value < 2**63 for value in values], np.bool_)
    return np.array([v if ok else 0 for v, ok in zip(values, sound, strict=True)], np.int64), sound


def numbers(values: Sequence[Any]) -> Floats:
    """The values that are numbers, NaN for the others."""
    if set(map(type, values)) <= {int, float}:
        try:
            return np.array(values, np.float64)
        except OverflowError:
            pass
    return np.array([_number(value) for value in values], np.float64)


def boxes(values: Sequence[Any]) -> Floats:
    """`[n, 4]`: the values that are lists of four numbers, NaN for the others."""
    if all(type(value) is list and len(value) == 4 for value in values):
        return numbers(list(chain.from_iterable(values))).reshape(-1, 4)
    rows = [value if type(value) is list and len(value) == 4 else [None] * 4 for value in values]
    return numbers(list(chain.from_iterable(rows))).reshape(-1, 4)


def _number(value: Any) -> float:
    if type(value) is float or (type(value) is int and abs(value) < 2**1000):
        return float(value)
    return float("nan")
