"""What a request may cost; checked before anything is computed."""

from __future__ import annotations

import base64
import binascii
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from toolkit.data.images import decode_rgb
from toolkit.errors import UserError


class RefusedError(Exception):
    """A request that is not served: HTTP `status`, a message, and after how many seconds to come again."""

    def __init__(self, status: int, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.retry_after = status, message, retry_after


@dataclass(frozen=True)
class Limits:
    """Of one worker process."""

    body_bytes: int = 64 * 2**20
    pixels: int = 50_000_000
    """Of one picture."""
    pictures: int = 16
    """In one request."""
    queue: int = 256
    """Pictures that wait."""
    seconds: float = 30.0
    """For a request's body to come, and from then to the start of its computation."""
    url_bytes: int = 32 * 2**20
    url_seconds: float = 10.0


def bytes_of(text: str) -> bytes:
    """The file in a request's Base64, with or without the head of a data URL.

    Raises RefusedError.
    """
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        # Line breaks are allowed by some encoders.
        try:
            data = base64.b64decode("".join(text.split()), validate=True)
        except (binascii.Error, ValueError):
            raise RefusedError(422, "image: neither Base64 nor a URL") from None
    if not data:
        raise RefusedError(422, "image: empty")
    return data


def check_head(data: bytes, limits: Limits) -> None:
    """Look at the head of a picture's file alone.

    Raises RefusedError if it is none, or one of too many pixels.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
    except Image.DecompressionBombError:
        raise RefusedError(413, f"image: more than {limits.pixels} pixels") from None
    except Exception:  # Pillow's plugins raise errors of many kinds.
        raise RefusedError(422, "image: not a picture that can be read") from None
    if width * height > limits.pixels:
        raise RefusedError(413, f"image: {width} x {height} are more than {limits.pixels} pixels")


def decode(data: bytes) -> NDArray[np.uint8]:
    """The pixels of a picture's file whose head is checked, `[H, W, 3]`, RGB, upright.

    Raises RefusedError.
    """
    try:
        return decode_rgb(data, name="image")
    except UserError as error:
        raise RefusedError(422, str(error)) from None
