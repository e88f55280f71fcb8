from __future__ import annotations

import logging
import os
import time

from toolkit.serve.log import LINES, BackgroundHandler


def test_a_log_that_nobody_reads_holds_nothing_up() -> None:
    reading, writing = os.pipe()
    logger = logging.Logger("test")
    logger.addHandler(BackgroundHandler(writing))
    start = time.monotonic()
    for number in range(2 * LINES):
        logger.info("line %d %s", number, "x" * 20)
    assert time.monotonic() - start < 10
    said = os.read(reading, 2**20).decode().splitlines()
    assert said[:2] == [f"line {number} {'x' * 20}" for number in (0, 1)]


def test_flushed_lines_are_written() -> None:
    reading, writing = os.pipe()
    handler = BackgroundHandler(writing)
    for word in ("one", "two"):
        handler.emit(logging.makeLogRecord({"msg": word}))
    handler.flush()
    assert os.read(reading, 100) == b"one\ntwo\n"
