"""The service at twice its capacity: who is refused, how soon, and what the others get.

    python benchmarks/overload.py PICTURE MODEL_FOLDER [--seconds 300] [--serve="--seconds 5"]

Runs in a checkout that is installed for editing. Four clients measure the capacity; 64 then ask twice as often, each on
a connection of its own for every request. `--serve` adds options to `seg-tune serve`.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import shlex
import sys
import tempfile
import time
from pathlib import Path

from serving import config_of, free_port, running

from tests.e2e.load import clients, describe, part

CALM = 20.0
"""Seconds in which the capacity is measured."""


def answered(port: int, body: bytes, *, count: int, seconds: float, per_second: float | None = None) -> float:
    """Print what `count` clients see, and return how many of their requests a second are answered."""
    start = time.perf_counter()
    outcomes = asyncio.run(clients(port, body, count=count, seconds=seconds, per_second=per_second))
    took = time.perf_counter() - start  # With those that were begun before the end.
    print(f"{count} clients: {describe(outcomes, took)}", flush=True)
    return len(part(outcomes, 200)) / took


def measure(port: int, body: bytes, seconds: float) -> None:
    asyncio.run(clients(port, body, count=4, seconds=CALM / 2))
    capacity = answered(port, body, count=4, seconds=CALM)
    goodput = answered(port, body, count=64, seconds=seconds, per_second=2 * capacity)
    print(f"{goodput / capacity:.2f} of what 4 clients were answered")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--serve", default="")
    given = parser.parse_args()

    body = json.dumps({"image": base64.b64encode(given.picture.read_bytes()).decode()}).encode()
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        config = config_of(given.model, Path(folder))
        command = [sys.executable, "-m", "toolkit.cli.main", "serve", "--pipeline", str(config), "--port", str(port)]
        with running([*command, *shlex.split(given.serve)], port, body, dict(os.environ)):
            measure(port, body, given.seconds)


if __name__ == "__main__":
    main()
