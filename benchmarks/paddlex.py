"""seg-tune beside PaddleX: one picture from the file to COCO RLE, on the same exported model, in turns.

    PADDLEX_PYTHON=/path/to/python python benchmarks/paddlex.py PICTURES Mask-RT-DETR-S PP-YOLOE_seg-S

PICTURES is a folder. Models without an export in the folder `--models` are made up there, see `made_up.py`: weights
that nobody trained, with as many instances above the threshold as trained ones find; their masks are raggeder, which
makes RLE dearer on both sides. `--engine`, which may be given several times, names engines of seg-tune.

PaddleX runs as it does by default, in a process of its own. By default it runs Mask-RT-DETR-L, X, H and PP-YOLOE_seg-S
with oneDNN, which these exports bear and those of PaddleDetection do not; `--plain` runs it without, as it has to run
those. Each takes all pictures, one after the other, and then the next one's turn comes (with `--count 1` after each
picture, which finds no memory in the caches that the others used). Between two turns nobody computes for a moment,
since threads of the one that is done still wait for work, on the cores. Whatever else the machine does slows all alike:
trust the ratios. What differs are cores that share a cache and cores that do not, see `cores.py`: each has rows of its
own, of the repetitions in which it was so for both sides, and so have those in which cores were moved.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cores import APART, SHARED, handing_over, where
from others import environment

from toolkit import create_pipeline
from toolkit.pipeline.inputs import list_inputs
from toolkit.pipeline.predictor import Pipeline

ROOT = Path(__file__).parents[1]
REST = 0.5
"""Seconds before and after a turn."""
MOVED = "moved"


@dataclass(frozen=True)
class Run:
    """One picture, from the file to RLE."""

    ms: float
    """On the wall; `cpu_ms` of all threads together, which others on the machine change less."""
    cpu_ms: float
    instances: int
    cores: str = ""
    """Where they were before and after its turn."""


class PaddleX:
    def __init__(self, name: str, folder: Path, threshold: float, *, plain: bool) -> None:
        side = Path(__file__).with_name("paddlex_side.py")
        # Isolated, or this folder's paddlex.py would be what it imports.
        command = [os.environ["PADDLEX_PYTHON"], "-I", str(side), name, str(folder), repr(threshold)]
        command += ["paddle"] if plain else []
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = subprocess.Popen(command, env=environment(), **pipes)
        self._answer()

    def __call__(self, picture: str) -> Run:
        assert self._process.stdin is not None
        print(picture, file=self._process.stdin, flush=True)
        return Run(**json.loads(self._answer()))

    def _answer(self) -> str:
        assert self._process.stdout is not None
        for line in self._process.stdout:  # Among what else it prints.
            if line.startswith("@ "):
                return line[2:]
        raise SystemExit("PaddleX ended; see above")

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def ours(pipeline: Pipeline, picture: str) -> Run:
    start, cpu = time.perf_counter(), time.process_time()
    [result] = pipeline.predict(picture)
    rles = result.to_rle()
    return Run(1000 * (time.perf_counter() - start), 1000 * (time.process_time() - cpu), len(rles))


def compare(
    name: str, folder: Path, pictures: list[str], engines: list[str | None], *, repetitions: int, plain: bool
) -> None:
    pipelines = {engine or "seg-tune": create_pipeline(folder, engine=engine) for engine in engines}
    paddlex = PaddleX(name, folder, next(iter(pipelines.values())).threshold, plain=plain)
    runs: dict[str, list[Run]] = {side: [] for side in ("PaddleX", *pipelines)}
    for repetition in range(1 + repetitions):
        for side, done in runs.items():
            time.sleep(REST)
            before = where(handing_over())
            turn = [
                paddlex(picture) if side == "PaddleX" else ours(pipelines[side], picture)
                for picture in (pictures if repetition else pictures[:1])
            ]
            time.sleep(REST)
            cores = before if before == where(handing_over()) else MOVED
            if repetition:  # The first one warms up.
                done += [replace(run, cores=cores) for run in turn]
    paddlex.close()
    for cores in (SHARED, APART, MOVED):
        for side, mine in runs.items():
            pairs = [(a, b) for a, b in zip(runs["PaddleX"], mine, strict=True) if during(a, b) == cores]
            if pairs:
                label = side if side in ("PaddleX", "seg-tune") else f"seg-tune {side}"
                label += f" ({pipelines[side].backend.name})" if side == "seg-tune" else ""
                print(f"| {name} | {cores} | {label} | {row(pairs)} |", flush=True)


def during(a: Run, b: Run) -> str:
    return a.cores if a.cores == b.cores else MOVED


def row(pairs: list[tuple[Run, Run]]) -> str:
    # Twice, since a single run has no quarters.
    low, median, high = statistics.quantiles([run.ms for _, run in pairs] * 2, n=4)
    ratio = statistics.median(a.ms / b.ms for a, b in pairs)
    of_cpu = statistics.median(a.cpu_ms / b.cpu_ms for a, b in pairs)
    instances = statistics.mean(run.instances for _, run in pairs)
    return f"{len(pairs)} | {median:.0f} ({low:.0f} - {high:.0f}) | 1/{ratio:.1f} | 1/{of_cpu:.1f} | {instances:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("model", nargs="+")
    parser.add_argument("--models", type=Path, default=ROOT / "output" / "made_up")
    parser.add_argument("--engine", action="append")
    parser.add_argument("--count", type=int, default=4, help="pictures")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--plain", action="store_true", help="PaddleX without oneDNN")
    given = parser.parse_args()
    if "PADDLEX_PYTHON" not in os.environ:
        sys.exit("PADDLEX_PYTHON does not name a Python that has PaddleX")
    pictures = [str(source.value) for source in list_inputs(given.pictures)][: given.count]
    print("| model | cores | who | runs | ms a picture (quarters) | of PaddleX | CPU time | instances |")
    print("|---|---|---|---|---|---|---|---|")
    for name in given.model:
        folder = given.models / name
        if not (folder / "inference.yml").is_file():
            # In a process of its own, for the sake of memory and of Paddle's threads.
            side = Path(__file__).with_name("made_up.py")
            subprocess.run([sys.executable, side, name, given.models, given.pictures], check=True)
        engines = given.engine or [None]
        compare(name, folder, pictures, engines, repetitions=given.repetitions, plain=given.plain)


if __name__ == "__main__":
    main()
