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
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.e2e.load import ask, clients, describe, part
from toolkit.pipeline.config import dump_pipeline_config
from toolkit.pipeline.exported import read_exported

CALM = 20.0
"""Seconds in which the capacity is measured."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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

    exported = read_exported(given.model)
    body = json.dumps({"image": base64.b64encode(given.picture.read_bytes()).decode()}).encode()
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "pipeline.yaml"
        text = dump_pipeline_config(
            model_name=exported.model_name, model_dir=given.model.resolve(), threshold=exported.threshold
        )
        config.write_text(text, encoding="utf-8")
        command = [sys.executable, "-m", "toolkit.cli.main", "serve", "--pipeline", str(config), "--port", str(port)]
        with subprocess.Popen([*command, *shlex.split(given.serve)], stderr=subprocess.DEVNULL) as service:
            try:
                while asyncio.run(ask(port, body)).status != 200:
                    if service.poll() is not None:
                        sys.exit(f"the service ended with {service.returncode}")
                    time.sleep(0.2)
                measure(port, body, given.seconds)
            finally:
                service.terminate()


if __name__ == "__main__":
    main()
