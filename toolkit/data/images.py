"""Pictures from files: decoded, upright, and checked for being whole."""

from __future__ import annotations

import hashlib
import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from toolkit.errors import RuleError, UserError

_ORIENTATION = 0x0112
_DECODE = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
# A file of these formats is whole if its last bytes hold this marker.
_END = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND"}
_TAIL = 32
# Pillow warns from half of the pixels on that it refuses.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

LONGEST_SIDE = 65_535
"""Of a picture; JPEG's own limit."""


class PictureError(RuleError, UserError):
    """A file that is no whole picture."""


@dataclass(frozen=True)
class Header:
    """What a picture file says about itself."""

    stored: tuple[int, int]
    """Height and width of the pixels as they lie in the file."""
    orientation: int
    """EXIF's number, 1 to 8; 1 is upright."""

    @property
    def displayed(self) -> tuple[int, int]:
        """Height and width of the upright picture."""
        return self.stored if self.orientation < 5 else self.stored[::-1]


def read_rgb(path: str | Path) -> NDArray[np.uint8]:
    """Pixels `[H, W, 3]` of the upright picture (EXIF orientation applied).

    Gray becomes three equal channels, 16 bits become their upper 8, transparency is dropped.

    Raises UserError for what is no picture, is cut off or cannot be read.
    """
    return decode_rgb(_read(Path(path)), name=path)


def decode_rgb(data: bytes, *, name: str | Path) -> NDArray[np.uint8]:
    """The same of a file's bytes; errors call it `name`."""
    with _opened(name, io.BytesIO(data)) as image:
        orientation = _orientation(image)
        if not _ends_well(image.format, data[-_TAIL:]):
            _decode_strictly(name, image)
        # OpenCV turns TIFFs whatever it is told.
        turned_by_opencv = image.format == "TIFF" and orientation != 1
    try:
        bgr = None if turned_by_opencv else cv2.imdecode(np.frombuffer(data, np.uint8), _DECODE)
    except cv2.error:
        bgr = None
    if bgr is None:
        return _read_with_pillow(name, data)
    return upright(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), orientation)


def read_header(path: str | Path) -> Header:
    """Size and orientation, without decoding JPEG and PNG; their last bytes tell a file that was cut off.

    Raises UserError for what is no picture or is cut off.
    """
    file = Path(path)
    try:
        with file.open("rb") as stream, _opened(path, stream) as image:
            header = Header((image.height, image.width), _orientation(image))
            stream.seek(max(0, file.stat().st_size - _TAIL))
            whole = _ends_well(image.format, stream.read())
    except OSError as error:
        raise PictureError("image-unreadable", f"{path}: cannot be read: {error.strerror or error}") from None
    if whole:
        return header
    # Seldom: cut off, of another format, or with something after the picture.
    height, width = read_rgb(path).shape[:2]
    return Header((height, width) if header.orientation < 5 else (width, height), header.orientation)


@dataclass(frozen=True)
class Look:
    """What is seen in a picture that was decoded to its end."""

    header: Header
    format: str
    mode: str
    """Pillow's name for the kind of pixels."""
    deep: bool
    """More than 8 bits a channel."""
    alpha: bool
    frames: int
    digest: bytes
    """Of the file."""
    thumb: NDArray[np.uint8]
    """Gray `[16, 16]`, not turned."""
    blank: bool
    """One colour all over."""


def examine(path: str | Path) -> Look:
    """Decode a picture to its end, JPEG at down to an eighth of its size.

    Raises PictureError for what `read_rgb` cannot read, and for what is cut off or damaged.
    """
    data = _read(Path(path))
    with _opened(path, io.BytesIO(data)) as image:
        header = Header((image.height, image.width), _orientation(image))
        mode, kind = image.mode, str(image.format)
        deep = mode[0] in "IF" or any(";16" in str(tile) for tile in getattr(image, "tile", ()))
        alpha = mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info
        image.draft("L", (32, 32))
        _decode_strictly(path, image)
        gray = image if image.mode == "L" else image.convert("RGBA" if alpha else "RGB").convert("L")
        thumb = np.asarray(gray.resize((16, 16), Image.Resampling.BOX))
        low, high = np.asarray(gray).min(), np.asarray(gray).max()
        frames = _frames(image)
    if mode[0] in "IF":
        read_rgb(path)
    return Look(
        header=header,
        format=kind,
        mode=mode,
        deep=deep,
        alpha=alpha,
        frames=frames,
        digest=hashlib.blake2b(data, digest_size=16).digest(),
        thumb=thumb,
        # What encoders leave of one colour is not exactly one.
        blank=bool(int(high) - int(low) <= 2),
    )


def _frames(image: Image.Image) -> int:
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:  # Of damage behind the first frame.
        return 1


def upright(array: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn `[H, W, ...]` as stored into what EXIF's `orientation` (1 to 8) says is displayed."""
    if orientation >= 5:
        array = array.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return np.ascontiguousarray(array)


def upright_points(points: NDArray[np.float64], orientation: int, stored: tuple[int, int]) -> NDArray[np.float64]:
    """`upright` for points `[n, 2]` (x, y) of a picture whose stored size is `stored` (height, width)."""
    height, width = stored
    if orientation >= 5:
        points, height, width = points[:, ::-1], width, height
    if orientation in (2, 3, 6, 7):
        points = points * (-1, 1) + (width, 0)
    if orientation in (3, 4, 7, 8):
        points = points * (1, -1) + (0, height)
    return points


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise PictureError("image-unreadable", f"{path}: cannot be read: {error.strerror or error}") from None


def _opened(path: str | Path, stream: Any) -> Image.Image:
    try:
        image = Image.open(stream)
    except Image.DecompressionBombError:
        raise PictureError("image-bomb", f"{path}: more than 178 million pixels; make it smaller") from None
    except Exception:  # Pillow's plugins raise errors of many kinds.
        raise PictureError("image-unreadable", f"{path}: not a picture that can be read") from None
    if max(image.size) > LONGEST_SIDE:
        raise PictureError("image-bomb", f"{path}: more than {LONGEST_SIDE} pixels on a side; make it smaller")
    return image


def _orientation(image: Image.Image) -> int:
    # Pillow would decode a whole PNG to look for EXIF behind the pixels.
    if image.format == "PNG" and "exif" not in image.info:
        return 1
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # Damaged EXIF is of many kinds as well, and no reason to lose the picture.
        return 1
    return value if value in range(1, 9) else 1


def _ends_well(kind: str | None, tail: bytes) -> bool:
    return kind in _END and _END[kind] in tail


def _decode_strictly(path: str | Path, image: Image.Image) -> None:
    """OpenCV fills what is missing with gray; Pillow says it."""
    try:
        image.load()
    except Exception as error:
        raise PictureError("image-truncated", f"{path}: damaged picture: {' '.join(str(error).split())}") from None


def _read_with_pillow(path: str | Path, data: bytes) -> NDArray[np.uint8]:
    """What this build of OpenCV cannot read, upright."""
    with _opened(path, io.BytesIO(data)) as image:
        _decode_strictly(path, image)
        if image.mode[0] in "IF":
            raise PictureError(
                "image-unreadable",
                f"{path}: {image.format} with pixels of kind {image.mode} cannot be read; make it a PNG",
            )
        # Pillow has turned a TIFF when it is loaded; some versions would turn it again.
        turned = image if image.format == "TIFF" else ImageOps.exif_transpose(image)
        return np.asarray(turned.convert("RGB"))
