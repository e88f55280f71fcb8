"""How long `seg-tune --help` takes beside an interpreter that does nothing.

    python benchmarks/startup.py [repetitions]

Run it in a checkout, or with the Python that seg-tune is installed in. The two are measured in turn, so that a machine
that slows down slows both.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "seg-tune --help": [sys.executable, "-c", "from toolkit.cli.main import main; main()", "--help"],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for command in commands.values():
        seconds(command)  # Fills the caches of bytecode and disk.
    for _ in range(repetitions):
        for name, command in commands.items():
            times[name].append(seconds(command))
    print(f"{repetitions} repetitions, seconds of wall time{'':3}median    min")
    for name, values in times.items():
        print(f"{name:<40}{statistics.median(values):>8.3f}{min(values):>7.3f}")
    python, ours = (statistics.median(values) for values in times.values())
    print(f"{'difference; ratio':<40}{ours - python:>8.3f}{ours / python:>6.1f}x")


if __name__ == "__main__":
    main()
