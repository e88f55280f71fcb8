"""A folder of pictures through a pipeline: one by one, and several at a time in different ways; and its memory.

    python benchmarks/throughput.py MODEL_FOLDER PICTURES [--block 12] [--blocks 5] [--save] [--engine NAME]
    python benchmarks/throughput.py MODEL_FOLDER PICTURES --memory 2000

MODEL_FOLDER is an export, see `made_up.py`; PICTURES is a folder, whose pictures are copied over and over. The first
form gives each way the same block of pictures in turn, from file to RLE (with `--save` to the saved picture and JSON),
so that whatever else the machine does slows all alike. The second sends so many pictures through and prints memory
along the way.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from toolkit import cores, create_pipeline
from toolkit.pipeline.inputs import list_inputs
from toolkit.pipeline.predictor import Pipeline
from toolkit.pipeline.result import Result
from toolkit.pipeline.sessions import Sessions

Way = Callable[[list[str]], Iterable[Result]]


def ways(model: Path, engine: str | None) -> dict[str, Way]:
    devices = ("cpu", "cpu", f"cpu:{cores()}")
    chosen, single, several = (create_pipeline(model, device=device, engine=engine) for device in devices)
    single.sessions = Sessions([single.backend])

    def one_by_one(files: list[str]) -> Iterable[Result]:
        return (result for file in files for result in single.predict(file))

    return {
        "one by one": one_by_one,
        "overlapped, one session of all cores": single.predict,
        "overlapped, a session of one thread for each core": several.predict,
        "overlapped, as chosen": chosen.predict,
    }


def compare(each: dict[str, Way], files: list[str], *, block: int, blocks: int, save: Path | None) -> None:
    for way in each.values():
        list(way(files[:3]))
    seconds: dict[str, list[float]] = {name: [] for name in each}
    processor: dict[str, list[float]] = {name: [] for name in each}
    for start in range(0, block * blocks, block):
        for name, way in each.items():
            begin, cpu = time.perf_counter(), time.process_time()
            for result in way(files[start : start + block]):
                result.to_rle() if save is None else result.save_all(save)
            seconds[name].append((time.perf_counter() - begin) / block)
            processor[name].append((time.process_time() - cpu) / block)
    first = seconds["one by one"]
    for name, values in seconds.items():
        ratios = [a / b for a, b in zip(first, values, strict=True)]
        print(
            f"{name:50} {1 / statistics.median(values):6.2f} pictures/s, median ratio "
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f} - {max(ratios):.2f}), "
            f"{statistics.median(processor[name]):.2f} s of processor time a picture"
        )


def watch(pipeline: Pipeline, folder: Path) -> None:
    start = time.perf_counter()
    for number, result in enumerate(pipeline.predict(folder), 1):
        result.to_rle()
        if number % 100 == 0:
            rate = number / (time.perf_counter() - start)
            print(
                f"{number:6} pictures: {rate:.2f} a second, {resident():.0f} MB now, {peak():.0f} MB peak", flush=True
            )


def resident() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def peak() -> float:
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def copies(source: Path, folder: Path, count: int) -> list[str]:
    found = [Path(str(each.value)) for each in list_inputs(source)]
    files = []
    for number in range(count):
        file = found[number % len(found)]
        files.append(str(folder / f"{number:07}{file.suffix}"))
        # Some bytes behind the end make each file another one.
        Path(files[-1]).write_bytes(file.read_bytes() + os.urandom(8))
    return files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--block", type=int, default=12)
    parser.add_argument("--blocks", type=int, default=5)
    parser.add_argument("--engine")
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--memory", type=int, metavar="COUNT")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        pictures, saved = Path(scratch, "pictures"), Path(scratch, "saved")
        pictures.mkdir()
        files = copies(given.pictures, pictures, given.memory or given.block * given.blocks)
        if given.memory:
            watch(create_pipeline(given.model, engine=given.engine), pictures)
        else:
            each = ways(given.model, given.engine)
            compare(each, files, block=given.block, blocks=given.blocks, save=saved if given.save else None)


if __name__ == "__main__":
    main()
