"""What is looked at before anything is decoded."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.serve.conftest import encoded, text_of
from toolkit.serve.limits import Limits, RefusedError, bytes_of, check_head, decode


@given(st.binary(min_size=1, max_size=200))
def test_base64_in_its_usual_forms(data: bytes) -> None:
    text = text_of(data)
    assert bytes_of(text) == data
    assert bytes_of(f"data:image/png;base64,{text}") == data
    assert bytes_of("\n".join(text[i : i + 76] for i in range(0, len(text), 76))) == data


@given(st.text(max_size=40))
def test_anything_else_is_refused_or_bytes(text: str) -> None:
    with suppress(RefusedError):
        assert bytes_of(text)


def png(width: int, height: int, *, depth: int = 8, kind: int = 2) -> bytes:
    """A PNG that says it is large, with next to nothing in it."""
    packed = zlib.compress(bytes(1000))
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)),
        (b"IDAT", packed),
        (b"IEND", b""),
    ]
    body = b"".join(struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + body


def saying(data: bytes, at: int, code: str, *values: int) -> bytes:
    """A file with other numbers at a place of its head."""
    return data[:at] + struct.pack(code, *values) + data[at + struct.calcsize(code) :]


def jpeg(width: int, height: int) -> bytes:
    data = encoded(kind="JPEG")
    return saying(data, data.index(b"\xff\xc0") + 5, ">HH", height, width)


BOMBS = {
    **{
        f"png {w} x {h}": png(w, h)
        for w, h in [(60000, 60000), (2**31 - 1, 1), (1, 2**31 - 1), (100_000, 600), (9000, 9000)]
    },
    **{f"png of {depth} bits": png(30_000, 30_000, depth=depth, kind=0) for depth in (1, 8, 16)},
    "png with alpha": png(20_000, 20_000, kind=6),
    **{f"jpeg {w} x {h}": jpeg(w, h) for w, h in [(65500, 65500), (65535, 1000), (20000, 20000)]},
    **{f"gif {w} x {h}": saying(encoded(kind="GIF"), 6, "<HH", w, h) for w, h in [(65535, 65535), (10000, 6000)]},
    **{f"bmp {w} x {h}": saying(encoded(kind="BMP"), 18, "<ii", w, h) for w, h in [(2**30, 2**30), (30000, 30000)]},
    "bmp upside down": saying(encoded(kind="BMP"), 18, "<ii", 30000, -30000),
    "ppm": b"P6 60000 60000 255\n" + bytes(100),
    "pbm": b"P4 90000 90000\n" + bytes(100),
    "pcx": saying(encoded(kind="PCX"), 8, "<HH", 65535, 65535),
}


def test_there_are_twenty_bombs() -> None:
    assert len(BOMBS) == 20


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_before_they_go_off(name: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(RefusedError) as caught:
            check_head(BOMBS[name], Limits())
        assert caught.value.status in (413, 422)
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"])
def test_formats(kind: str) -> None:
    check_head(encoded((30, 41), kind), Limits())
    rgb = decode(encoded((30, 41), kind))
    assert rgb.shape == (30, 41, 3)
    assert np.abs(rgb.astype(int) - (200, 30, 90)).max() < 8


def test_it_comes_upright() -> None:
    stream = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (48, 40)).save(stream, "JPEG", exif=exif)
    assert decode(stream.getvalue()).shape == (48, 40, 3)
