"""Files that hold several pictures: the pages of a PDF, the frames of a video."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from toolkit.errors import UserError
from toolkit.extras import install_line

SCALE = 2.0
"""Pixels of a page for each of its points, of which an inch has 72; PaddleX's."""
PIXELS = 178_956_970
"""Of a page; larger ones are drawn smaller. It is what Pillow takes of a picture."""
WHOLE = 0.9
"""Part of the frames that a video says it has, and that must be there. Not all: some formats state a guess."""

Reader = Callable[[str, str], Iterator[NDArray[np.uint8]]]
"""Path of a file and the name that errors give it -> its pictures, each `[H, W, 3]`, RGB, read when asked for."""

# Otherwise FFmpeg's own remarks on broken files stand before the error; it is read at the first video.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
# PDFium bears one thread at a time. A document that is let go of may be closed inside of another's call.
_PDFIUM = threading.RLock()


def _pages(path: str, name: str) -> Iterator[NDArray[np.uint8]]:
    try:
        import pypdfium2 as pdfium
    except ImportError:
        raise UserError(f"{name}: PDF needs pypdfium2, which is not installed; {install_line('pypdfium2')}") from None
    try:
        with _PDFIUM:
            document = pdfium.PdfDocument(path)
            document.init_forms()
            count = len(document)
    except pdfium.PdfiumError as error:
        raise UserError(f"{name}: not a PDF that can be read: {error}") from None
    try:
        for number in range(count):
            try:
                with _PDFIUM:
                    page = document[number]
                    width, height = page.get_size()
                    scale = min(SCALE, math.sqrt(PIXELS / (width * height)))
                    # What it gives is PDFium's own memory.
                    rgb = page.render(scale=scale, rev_byteorder=True).to_numpy()[..., :3].copy()
                    page.close()
            except (pdfium.PdfiumError, ValueError, ZeroDivisionError) as error:
                raise UserError(f"{name}: page {number} (counted from 0) cannot be drawn: {error}") from None
            yield rgb
    finally:
        with _PDFIUM:
            document.close()
    if not count:
        raise UserError(f"{name}: a PDF without pages")


def _frames(path: str, name: str) -> Iterator[NDArray[np.uint8]]:
    # Its remark on a file that it cannot open; the error says it.
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
    video = cv2.VideoCapture(path, cv2.CAP_FFMPEG)
    cv2.utils.logging.setLogLevel(level)
    try:
        stated, count = int(video.get(cv2.CAP_PROP_FRAME_COUNT)), 0
        while True:
            there, bgr = video.read()
            if not there:
                break
            yield cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
            count += 1
    finally:
        video.release()
    if not count:
        raise UserError(f"{name}: not a video that can be read")
    if count < WHOLE * stated:
        raise UserError(f"{name}: damaged video: ends after {count} of {stated} frames")


READERS: dict[str, Reader] = {
    ".pdf": _pages,
    **dict.fromkeys((".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv"), _frames),
}
"""By the ending of the file, in lower case."""


def reader_of(name: str) -> Reader | None:
    """What reads the pictures of a file with this name; None where it is one picture."""
    return READERS.get(Path(name).suffix.lower())
