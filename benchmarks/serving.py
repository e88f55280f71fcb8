"""seg-tune's service beside PaddleX's basic server: the same exported model, the same clients, in turn.

    PADDLEX_PYTHON=/path/to/python python benchmarks/serving.py PICTURES MODEL_FOLDER

PICTURES is a folder; the environment of PADDLEX_PYTHON has had `paddlex --install serving`. Both servers are up all the
time and one of them at a time is asked, at each number of clients, a round after the other. Both run as they do by
default. `--no-visualize` asks for no drawn picture. `--ours-only` leaves PaddleX out, `--serve` adds options to
`seg-tune serve` (`--serve="--engine openvino_bf16"`). PaddleX downloads a font to draw with; where it cannot, name one
by PADDLE_PDX_LOCAL_FONT_FILE_PATH.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import itertools
import json
import os
import shlex
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from others import environment

from toolkit.pipeline.config import dump_pipeline_config
from toolkit.pipeline.exported import read_exported
from toolkit.pipeline.inputs import list_inputs

ENDPOINT = "/instance-segmentation"
START_SECONDS = 180


@dataclass
class Load:
    """What so many clients saw."""

    answered: int = 0
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)

    @property
    def per_second(self) -> float:
        return self.answered / self.seconds

    def describe(self) -> str:
        p50, p99 = np.percentile(self.latencies, [50, 99])
        return f"{self.per_second:.2f} | {1000 * p50:.0f} | {1000 * p99:.0f} | {self.answered}"


def ask(connection: http.client.HTTPConnection, body: bytes) -> bytes:
    connection.request("POST", ENDPOINT, body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    answer = response.read()
    if response.status != 200:
        raise RuntimeError(f"{response.status}: {answer[:200]!r}")
    return answer


def drive(port: int, bodies: list[bytes], *, clients: int, seconds: float, load: Load) -> None:
    """Let `clients` ask one request after the other, for so long; what is begun is waited for."""
    start = time.perf_counter()
    turns = itertools.count()
    lock = threading.Lock()

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        while time.perf_counter() - start < seconds:
            begun = time.perf_counter()
            ask(connection, bodies[next(turns) % len(bodies)])
            with lock:
                load.answered += 1
                load.latencies.append(time.perf_counter() - begun)

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    load.seconds += time.perf_counter() - start


@contextmanager
def running(command: list[str], port: int, first: bytes, variables: dict[str, str]) -> Iterator[int]:
    """A server, once it has answered `first`."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=variables)
        try:
            deadline = time.monotonic() + START_SECONDS
            while True:
                try:
                    answer = ask(http.client.HTTPConnection("127.0.0.1", port), first)
                    break
                except (ConnectionRefusedError, RuntimeError) as error:
                    refused = isinstance(error, ConnectionRefusedError)
                    if not refused or process.poll() is not None or time.monotonic() > deadline:
                        log.seek(0)
                        sys.exit(f"{shlex.join(command)}: {error}\n{log.read().decode()}")
                    time.sleep(0.2)
            found = len(json.loads(answer)["result"]["instances"])
            print(f"{Path(command[0]).parents[1].name}: {found} instances in the first picture", file=sys.stderr)
            yield port
        finally:
            process.terminate()
            process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def config_of(model: Path, folder: Path) -> Path:
    """A pipeline config in `folder` for an exported model."""
    exported, config = read_exported(model), folder / "pipeline.yaml"
    text = dump_pipeline_config(model_name=exported.model_name, model_dir=model.resolve(), threshold=exported.threshold)
    config.write_text(text, encoding="utf-8")
    return config


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--seconds", type=float, default=20.0, help="of each round")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--no-visualize", action="store_true")
    parser.add_argument("--ours-only", action="store_true")
    parser.add_argument("--serve", default="")
    given = parser.parse_args()

    exported = read_exported(given.model)
    asked = {"threshold": exported.threshold, **({"visualize": False} if given.no_visualize else {})}
    files = [Path(str(source.value)).read_bytes() for source in itertools.islice(list_inputs(given.pictures), 16)]
    bodies = [json.dumps({"image": base64.b64encode(file).decode(), **asked}).encode() for file in files]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        shared = ["--pipeline", str(config_of(given.model, folder)), "--host", "127.0.0.1", "--port"]
        commands = {"seg-tune": [sys.executable, "-m", "toolkit.cli.main", "serve", *shlex.split(given.serve), *shared]}
        if not given.ours_only:
            # Isolated, or this folder's paddlex.py would be what it imports.
            theirs = [os.environ["PADDLEX_PYTHON"], "-I", "-m", "paddlex", "--serve", *shared]
            commands = {"PaddleX": theirs, **commands}
        ports = {}
        for side, command in commands.items():
            port = free_port()
            ports[side] = stack.enter_context(running([*command, str(port)], port, bodies[0], environment()))
        print("| clients | who | requests a second | p50 ms | p99 ms | requests |\n|---|---|---|---|---|---|")
        for clients in given.clients:
            loads = {side: Load() for side in ports}
            for _ in range(given.rounds):
                for side, port in ports.items():
                    drive(port, bodies, clients=clients, seconds=given.seconds, load=loads[side])
            for side, load in loads.items():
                print(f"| {clients} | {side} | {load.describe()} |", flush=True)
            if "PaddleX" in loads:
                ratio = loads["seg-tune"].per_second / loads["PaddleX"].per_second
                print(f"| {clients} | ratio | {ratio:.1f} | | | |", flush=True)


if __name__ == "__main__":
    main()
