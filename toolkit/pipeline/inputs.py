"""What can be predicted on: a file, a folder, a URL, an array, or a list of these."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.data.images import read_rgb
from toolkit.errors import UserError

EXTENSIONS = (".bmp", ".dib", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp")
"""Files with these endings, in upper or lower case, are taken from a folder and all folders in it."""

URL_BYTES = 64 * 2**20
URL_SECONDS = 30.0


@dataclass(frozen=True)
class Picture:
    """One picture to predict on."""

    rgb: NDArray[np.uint8]
    """`[H, W, 3]`, upright (EXIF orientation applied)."""
    path: str | None
    """The file or the URL; None for an array."""


def read_inputs(source: Any, *, on_error: Callable[[UserError], None] | None = None) -> Iterator[Picture]:
    """Yield the pictures of `source`, each read when it is asked for.

    Args:
        source: path of a picture; path of a folder, whose pictures come sorted by path; http(s) URL of a picture;
            uint8 array `[H, W, 3]` in BGR order, as OpenCV and PaddleX have it, or `[H, W]`; a mapping
            `{"img": one of these}`; a list or tuple of any of these.
        on_error: is told of a file in a folder that cannot be read, which then is passed over.

    Raises UserError for what else cannot be read; it names the file.
    """
    if isinstance(source, (list, tuple)):
        for item in source:
            yield from read_inputs(item, on_error=on_error)
    elif isinstance(source, Mapping):
        if "img" not in source:
            raise UserError(f"input: a mapping needs the key img (has: {', '.join(map(str, source))})")
        yield from read_inputs(source["img"], on_error=on_error)
    elif isinstance(source, np.ndarray):
        yield Picture(_from_bgr(source), None)
    elif isinstance(source, str) and source.lower().startswith(("http://", "https://")):
        yield Picture(_download(source), source)
    elif isinstance(source, (str, Path)):
        path = Path(source)
        if not path.is_dir():
            yield Picture(read_rgb(path), str(path))
            return
        for file in _pictures_in(path):
            rgb = _read_or_tell(file, on_error)
            if rgb is not None:
                yield Picture(rgb, str(file))
    else:
        kind = type(source).__name__
        raise UserError(f"input: {kind}: unknown kind; give a path, a folder, a URL, a BGR array or a list of these")


def _pictures_in(folder: Path) -> list[Path]:
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in EXTENSIONS and p.is_file())
    if not found:
        raise UserError(f"{folder}: no picture in this folder (looked for {' '.join(EXTENSIONS)})")
    return found


def _read_or_tell(file: Path, on_error: Callable[[UserError], None] | None) -> NDArray[np.uint8] | None:
    try:
        return read_rgb(file)
    except UserError as error:
        if on_error is None:
            raise
        on_error(error)
        return None


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
    with TemporaryDirectory() as folder:
        file = Path(folder) / "picture"
        file.write_bytes(data)
        try:
            return read_rgb(file)
        except UserError:
            raise UserError(f"{url}: not a picture that can be read") from None
