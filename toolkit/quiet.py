"""Keeping native libraries off the screen and the network."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
from collections.abc import Callable, Iterator
from importlib import import_module
from tempfile import TemporaryFile
from types import ModuleType
from typing import BinaryIO, cast

_ONE_AT_A_TIME = threading.RLock()
"""Threads would give each other's files back as the screen."""


@contextlib.contextmanager
def captured() -> Iterator[Callable[[], str]]:
    """Keep what C++ prints off the screen; what is yielded returns it."""
    with _ONE_AT_A_TIME, _file() as file:
        _flush()
        text = ""
        saved = [os.dup(1), os.dup(2)]
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            yield lambda: text
        finally:
            _flush()
            for number, copy in zip((1, 2), saved, strict=True):
                os.dup2(copy, number)
                os.close(copy)
            file.seek(0)
            text = file.read().decode(errors="replace")


def import_openvino() -> ModuleType:
    """OpenVINO without its telemetry, which reports each import over the network and fails where there is no home."""
    # Python takes None as "not installed", and OpenVINO then uses its own stand-in.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    return import_module("openvino")


def _file() -> BinaryIO:
    # In memory, so that no folder for temporary files is needed. Linux alone has it.
    with contextlib.suppress(AttributeError, OSError):
        return os.fdopen(os.memfd_create("captured"), "w+b")
    return cast(BinaryIO, TemporaryFile())


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    # C keeps what it prints in a buffer of its own; Windows does not hand out its library under this name.
    with contextlib.suppress(OSError, TypeError, AttributeError):
        ctypes.CDLL(None).fflush(None)
