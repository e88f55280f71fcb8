"""What can be predicted on: a file, a folder, a URL, an array, or a list of these."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.data.images import decode_rgb, read_rgb
from toolkit.errors import UserError

EXTENSIONS = (".bmp", ".dib", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp")
"""Files with these endings, in upper or lower case, are taken from a folder and all folders in it."""

URL_SCHEMES = ("http://", "https://")
URL_BYTES = 64 * 2**20
URL_SECONDS = 30.0


@dataclass(frozen=True)
class Picture:
    """One picture to predict on."""

    rgb: NDArray[np.uint8]
    """`[H, W, 3]`, upright (EXIF orientation applied)."""
    path: str | None
    """The file or the URL; None for an array."""


@dataclass(frozen=True)
class Source:
    """Where one picture comes from."""

    value: Any
    """A path, an http(s) URL or an array."""

    def read(self) -> Picture:
        """The picture. Raises UserError, which names the file, for what cannot be read."""
        if isinstance(self.value, np.ndarray):
            return Picture(_from_bgr(self.value), None)
        if isinstance(self.value, str) and self.value.lower().startswith(URL_SCHEMES):
            return Picture(_download(self.value), self.value)
        return Picture(read_rgb(self.value), str(self.value))


def list_inputs(input: Any) -> Iterator[Source]:
    """Yield where the pictures of `input` come from, in order, without reading them.

    Args:
        input: path of a picture; path of a folder, whose pictures come sorted by path; http(s) URL of a picture;
            uint8 array `[H, W, 3]` in BGR order, as OpenCV and PaddleX have it, or `[H, W]`; a mapping
            `{"img": one of these}`; a list or tuple of any of these.

    Raises UserError for a folder without pictures, and for an input of another kind.
    """
    if isinstance(input, (list, tuple)):
        for item in input:
            yield from list_inputs(item)
    elif isinstance(input, Mapping):
        if "img" not in input:
            raise UserError(f"input: a mapping needs the key img (has: {', '.join(map(str, input))})")
        yield from list_inputs(input["img"])
    elif isinstance(input, np.ndarray) or (isinstance(input, str) and input.lower().startswith(URL_SCHEMES)):
        yield Source(input)
    elif isinstance(input, (str, Path)):
        if Path(input).is_dir():
            yield from _pictures_in(input)
        else:
            yield Source(input)
    else:
        kind = type(input).__name__
        raise UserError(f"input: {kind}: unknown kind; give a path, a folder, a URL, a BGR array or a list of these")


def _pictures_in(folder: str | Path) -> Iterator[Source]:
    empty = True
    for path in _walk(str(folder)):
        if path.lower().endswith(EXTENSIONS):
            empty = False
            yield Source(path)
    if empty:
        raise UserError(f"{folder}: no picture in this folder (looked for {' '.join(EXTENSIONS)})")


def _walk(folder: str) -> Iterator[str]:
    """All files below, sorted by the parts of their paths; of millions, only the names in one folder are held."""
    try:
        with os.scandir(folder) as entries:
            # Links to files are followed; those to folders are not, which may lead round in circles.
            kinds = ((entry.name, entry.is_dir(follow_symlinks=False), entry.is_file()) for entry in entries)
            found = sorted((name, is_folder) for name, is_folder, is_file in kinds if is_folder or is_file)
    except OSError as error:
        raise UserError(f"{folder}: cannot be read: {error.strerror or error}") from None
    for name, is_folder in found:
        path = os.path.join(folder, name)  # noqa: PTH118  # strings: a Path takes four times the memory
        if is_folder:
            yield from _walk(path)
        else:
            yield path


def _from_bgr(array: NDArray[Any]) -> NDArray[np.uint8]:
    gray = array.ndim == 2
    if array.dtype != np.uint8 or array.size == 0 or not (gray or (array.ndim == 3 and array.shape[2] == 3)):
        raise UserError(f"input: an array must be uint8 [H, W, 3] in BGR order (is: {array.dtype} {list(array.shape)})")
    rgb = np.repeat(array[..., None], 3, axis=2) if gray else array[..., ::-1]
    return np.ascontiguousarray(rgb)


def _download(url: str) -> NDArray[np.uint8]:
    try:
        with urllib.request.urlopen(url, timeout=URL_SECONDS) as response:
            data = response.read(URL_BYTES + 1)
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise UserError(f"{url}: cannot be downloaded: {' '.join(str(error).split())}") from None
    if len(data) > URL_BYTES:
        raise UserError(f"{url}: larger than {URL_BYTES >> 20} MB")
    try:
        return decode_rgb(data, name=url)
    except UserError:
        raise UserError(f"{url}: not a picture that can be read") from None
