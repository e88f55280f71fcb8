"""What the readers share: pictures and their sizes, annotations from shapes, notes, names of parts."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from PIL import Image

from toolkit.data.coco import Annotation, Picture, Split
from toolkit.data.images import Header, read_header, upright, upright_points
from toolkit.data.masks import (
    MaskError,
    Polygon,
    Rle,
    Segmentation,
    parse_polygons,
    parse_rle,
    rle_area,
    rle_box,
    segmentation_to_rle,
)
from toolkit.errors import UserError

ENDINGS = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""What a picture beside its annotations may end in."""
ALL = "all"
"""Name of the one part of a dataset that is not divided."""
NO_ID = -1
_PARTS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def part_of(name: str) -> str | None:
    """`train`, `val` or `test` if `name` is, or begins or ends with, a usual word for it."""
    words = [re.sub(r"\d+$", "", word) for word in re.split(r"[^a-z0-9]+", name.lower())]
    found = {_PARTS[word] for word in words if word in _PARTS}
    return found.pop() if len(found) == 1 else None


@dataclass
class Notes:
    """What was treated rather than refused, summed up by kind."""

    origin: Path
    _texts: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, text: str) -> None:
        """`kind` reads on as `3 <kind>: <text of the first> and 2 more`."""
        self._texts.setdefault(kind, []).append(text)

    def lines(self) -> tuple[str, ...]:
        return tuple(
            f"{self.origin}: {len(texts)} {kind}: {texts[0]}" + (f" and {len(texts) - 1} more" if texts[1:] else "")
            for kind, texts in self._texts.items()
        )


@dataclass(frozen=True)
class Sheet:
    """A picture whose annotations are read: they may be for the upright picture or for its pixels as stored."""

    path: Path
    header: Header
    turned: bool
    """Whether annotations have to be turned with the picture."""

    @classmethod
    def open(cls, path: Path, *, declared: tuple[Any, Any], place: str) -> Sheet:
        """The picture at `path`, of which annotations say that height and width are `declared` (None: nothing).

        Raises UserError for what is no picture or of another size; `place` names the annotations.
        """
        header = read_header(path)
        if declared in ((None, None), header.displayed):
            return cls(path, header, turned=False)
        if declared == header.stored:
            return cls(path, header, turned=True)
        height, width = header.displayed
        raise UserError(
            f"{place}: {path.name} is {width} x {height} pixels, but the annotations are for "
            f"{declared[1]} x {declared[0]}; was the picture resized after annotation?"
        )

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of what annotations are for."""
        return self.header.stored if self.turned else self.header.displayed

    def upright(self, array: NDArray[Any]) -> NDArray[Any]:
        """`array` `[H, W]` over the annotated pixels, as it lies over the upright picture."""
        return upright(array, self.header.orientation) if self.turned else array

    def upright_polygon(self, polygon: Polygon) -> Polygon:
        if not self.turned:
            return polygon
        return upright_points(polygon.reshape(-1, 2), self.header.orientation, self.header.stored).ravel()

    def picture(self, file_name: str, annotations: Iterable[Annotation | None]) -> Picture:
        height, width = self.header.displayed
        return Picture(NO_ID, self.path, file_name, height, width, [a for a in annotations if a is not None])


def annotation_of(
    category: int, shape: Sequence[Polygon] | Rle, size: tuple[int, int], *, crowd: bool = False
) -> Annotation | None:
    """An annotation on a picture of `size` (height, width); None where its mask is empty.

    Raises MaskError.
    """
    segmentation: Segmentation = parse_rle(shape, size) if isinstance(shape, Mapping) else parse_polygons(shape, size)
    rle = segmentation_to_rle(segmentation, size)
    area = rle_area(rle)
    if not area:
        return None
    box = rle_box(rle)
    if isinstance(segmentation, list):
        points = np.concatenate(segmentation).reshape(-1, 2).clip(0, size[::-1])
        box = (*points.min(0).tolist(), *points.max(0).tolist())
    return Annotation(NO_ID, category, box, segmentation, float(area), crowd)


def checked(
    category: int, shape: Sequence[Polygon] | Rle, size: tuple[int, int], *, place: str, crowd: bool = False
) -> Annotation | None:
    """`annotation_of`, whose errors become UserErrors that name `place`."""
    try:
        return annotation_of(category, shape, size, crowd=crowd)
    except MaskError as error:
        raise UserError(f"{place}: {error}") from None


def make_parts(parts: Mapping[str, list[Picture]], origin: Path, classes: Sequence[str], notes: Notes) -> list[Split]:
    """The parts by name, with class ids 1, 2, ...; the first has the notes."""
    ids = tuple(range(1, len(classes) + 1))
    return [
        Split(name, origin, tuple(classes), ids, pictures, () if i else notes.lines())
        for i, (name, pictures) in enumerate(parts.items())
    ]


def parse_json(path: Path) -> Any:
    """Raises UserError with line and column."""
    text = read_bytes(path)
    try:
        return orjson.loads(text.removeprefix(b"\xef\xbb\xbf"))
    except orjson.JSONDecodeError as error:
        raise UserError(f"{path}: line {error.lineno} column {error.colno}: not valid JSON: {error.msg}") from None


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, stripped.

    Raises UserError.
    """
    try:
        return [line.strip() for line in read_bytes(path).decode("utf-8-sig").splitlines()]
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text in UTF-8") from None


def read_bytes(path: Path) -> bytes:
    """Raises UserError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None


def class_names(path: Path) -> list[str]:
    """The classes of a file with one a line; LabelMe's `__ignore__` and `_background_` are none.

    Raises UserError.
    """
    names = [line for line in read_lines(path) if line and line not in ("__ignore__", "_background_")]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{path}: {name} stands there twice")
    if not names:
        raise UserError(f"{path}: empty; there must be a class a line")
    return names


def name_below(path: Path, root: Path, *, place: str) -> str:
    """`path` from `root` on, with forward slashes.

    Raises UserError where it leads out of `root`.
    """
    # By name, not by where links lead: folders of pictures often are links.
    name = Path(os.path.relpath(path, root))
    if name.is_absolute() or ".." in name.parts:
        raise UserError(f"{place} leads out of {root}; name the folder that holds both")
    return name.as_posix()


def beside(folder: Path, stem: str) -> Path | None:
    """The picture called `stem` in `folder`, whatever its ending."""
    for ending in ENDINGS:
        for spelled in (ending, ending.upper()):
            path = folder / f"{stem}{spelled}"
            if path.is_file():
                return path
    return None


def read_ids(path: Path) -> NDArray[np.integer]:
    """The pixels of an indexed, gray or 16-bit PNG `[H, W]`, or of a coloured one `[H, W, 3]`.

    Raises UserError.
    """
    try:
        with Image.open(path) as image:
            if image.mode in ("P", "L", "1") or image.mode.startswith("I"):
                return np.asarray(image).astype(np.int64)
            return np.asarray(image.convert("RGB")).astype(np.int64)
    except FileNotFoundError:
        raise UserError(f"{path}: missing") from None
    except Exception:  # Pillow's plugins raise errors of many kinds.
        raise UserError(f"{path}: not a picture that can be read") from None
