"""What can be predicted on: a picture, PDF or video as a file or URL, a folder, an array, or a list of these."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from toolkit.data.images import decode_rgb, read_rgb
from toolkit.errors import UserError
from toolkit.pipeline.pages import reader_of

EXTENSIONS = (".bmp", ".dib", ".jpeg", ".jpg", ".pbm", ".pdf", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp")
"""Files with these endings, in upper or lower case, are taken from a folder and all folders in it, as PaddleX does."""

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
    page: int | None = None
    """Which page of a PDF or frame of a video, counted from 0; None for a picture by itself."""


@dataclass(frozen=True)
class Source:
    """Where one picture comes from."""

    value: Any
    """A path, an http(s) URL or an array. Of a PDF or video, the picture itself, or why there are no more."""

    def read(self) -> Picture:
        """The picture. Raises UserError, which names the file, for what cannot be read."""
        if isinstance(self.value, Picture):
            return self.value
        if isinstance(self.value, UserError):
            raise self.value
        if isinstance(self.value, np.ndarray):
            return Picture(_from_bgr(self.value), None)
        if is_url(self.value):
            return Picture(_decoded(self.value), self.value)
        return Picture(read_rgb(self.value), str(self.value))


def list_inputs(input: Any) -> Iterator[Source]:
    """Yield where the pictures of `input` come from, in order, without reading them; pages and frames come read, each
    when it is asked for.

    Args:
        input: path or http(s) URL of a picture, a PDF (its pages) or a video (its frames); path of a folder, whose
            pictures and PDFs come sorted by path; uint8 array `[H, W, 3]` in BGR order, as OpenCV and PaddleX have it,
            or `[H, W]`; a mapping `{"img": one of these}`; a list or tuple of any of these.

    Raises UserError for a folder without pictures, and for an input of another kind.
    """
    if isinstance(input, (list, tuple)):
        for item in input:
            yield from list_inputs(item)
    elif isinstance(input, Mapping):
        if "img" not in input:
            raise UserError(f"input: a mapping needs the key img (has: {', '.join(map(str, input))})")
        yield from list_inputs(input["img"])
    elif isinstance(input, np.ndarray):
        yield Source(input)
    elif isinstance(input, (str, Path)):
        if not is_url(input) and Path(input).is_dir():
            yield from _pictures_in(input)
        else:
            yield from _of_file(str(input))
    else:
        kind = type(input).__name__
        raise UserError(f"input: {kind}: unknown kind; give a path, a folder, a URL, a BGR array or a list of these")


def _pictures_in(folder: str | Path) -> Iterator[Source]:
    empty = True
    for path in _walk(str(folder)):
        if path.lower().endswith(EXTENSIONS):
            empty = False
            yield from _of_file(path)
    if empty:
        raise UserError(f"{folder}: no picture in this folder (looked for {' '.join(EXTENSIONS)})")


def _of_file(name: str) -> Iterator[Source]:
    reader = reader_of(file_name(name))
    if reader is None:
        yield Source(name)
        return
    try:
        with _at_hand(name) as path:
            for number, rgb in enumerate(reader(path, name)):
                yield Source(Picture(rgb, name, number))
    except UserError as error:
        # In its place, behind the pages or frames before it.
        yield Source(error)


@contextmanager
def _at_hand(name: str) -> Iterator[str]:
    """The path of a file, or of what is downloaded for as long as the block runs."""
    if not is_url(name):
        if not Path(name).is_file():
            raise UserError(f"{name}: no such file")
        yield name
        return
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"file{Path(file_name(name)).suffix}"
        path.write_bytes(_download(name))
        yield str(path)


def is_url(value: Any) -> bool:
    """Whether this is an http(s) URL."""
    return isinstance(value, str) and value.lower().startswith(URL_SCHEMES)


def file_name(path: str) -> str:
    """The name of the file that a path or a URL leads to; empty where it leads to none."""
    return Path(unquote(urlsplit(path).path) if is_url(path) else path).name


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


def _download(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=URL_SECONDS) as response:
            data = response.read(URL_BYTES + 1)
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise UserError(f"{url}: cannot be downloaded: {' '.join(str(error).split())}") from None
    if len(data) > URL_BYTES:
        raise UserError(f"{url}: larger than {URL_BYTES >> 20} MB")
    return data


def _decoded(url: str) -> NDArray[np.uint8]:
    data = _download(url)
    try:
        return decode_rgb(data, name=url)
    except UserError:
        raise UserError(f"{url}: not a picture that can be read") from None
