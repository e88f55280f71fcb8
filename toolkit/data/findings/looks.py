"""Rules on what is in a picture file: every one is decoded to its end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.data.findings.file import Advance, File
from toolkit.data.findings.pictures import compare_size, in_threads, take_declared_size
from toolkit.data.findings.record import Findings
from toolkit.data.images import Look, PictureError, examine

SMALL_SIDE = 32
THIN = 8
HUGE = 50
"""Megapixels."""
_SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "MPO": (".jpg", ".jpeg", ".jpe", ".mpo"),
    "PNG": (".png",),
    "BMP": (".bmp",),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "GIF": (".gif",),
}
_KNOWN_SUFFIXES = {suffix for suffixes in _SUFFIXES.values() for suffix in suffixes}


class Looks:
    """What was seen in the pictures of a file: digests and thumbnails, by the row of the image."""

    def __init__(self, file: File) -> None:
        self.digests: dict[int, bytes] = {}
        self.thumbs = np.zeros((len(file.files), 16, 16), np.uint8)
        self.modes: dict[str, int] = {}


def look_at_pictures(file: File, findings: Findings, *, most: int | None, advance: Advance) -> Looks:
    """Rules on the pictures themselves.

    Args:
        most: how many are opened, evenly spread; the others are taken to be as the file says.
    """
    looks = Looks(file)
    found = [row for row, path in enumerate(file.files) if path is not None]
    chosen = spread(found, most)
    for row in set(found).difference(chosen):
        take_declared_size(file, row)
    for done, (row, look) in enumerate(in_threads(lambda row: _look(file.files[row]), chosen), 1):
        if isinstance(look, PictureError):
            findings.add(look.code, file, "images", [row], key="file_name", error=str(look))
        else:
            compare_size(file, row, look.header, findings)
            looks.digests[row], looks.thumbs[row] = look.digest, look.thumb
            looks.modes[look.mode] = looks.modes.get(look.mode, 0) + 1
            _check(file, row, look, findings)
        advance(done, len(chosen))
    return looks


def spread(items: Sequence[int], most: int | None) -> list[int]:
    """At most `most` of the items, evenly spread."""
    if most is None or len(items) <= most:
        return list(items)
    return [items[i * len(items) // most] for i in range(most)]


def _look(path: Path | None) -> Look | PictureError:
    assert path is not None
    try:
        return examine(path)
    except PictureError as error:
        return error


def _check(file: File, row: int, look: Look, findings: Findings) -> None:
    path = file.files[row]
    assert path is not None
    height, width = look.header.displayed
    name = file.sections["images"][row]["file_name"]
    ratio = max(height, width) / min(height, width)

    def add(code: str, **values: Any) -> None:
        findings.add(code, file, "images", [row], key="file_name", name=name, **values)

    if min(height, width) < SMALL_SIDE:
        add("image-tiny", height=height, width=width)
    if ratio > THIN:
        add("image-thin", height=height, width=width, ratio=ratio)
    if height * width > HUGE * 1e6:
        add("image-huge", megapixels=height * width / 1e6)
    if look.blank:
        add("image-blank")
    if look.mode in ("1", "L", "LA", "I", "F") or look.mode.startswith("I;16"):
        add("image-gray")
    if look.mode == "CMYK":
        add("image-cmyk")
    if look.deep:
        add("image-16bit")
    if look.alpha:
        add("image-alpha")
    if look.frames > 1 and look.format != "MPO":
        add("image-frames", count=look.frames)
    suffix = path.suffix.lower()
    if suffix in _KNOWN_SUFFIXES and suffix not in _SUFFIXES.get(look.format, (suffix,)):
        add("image-extension", format=look.format)
