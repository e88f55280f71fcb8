"""How far apart two cores of the processor are at the moment.

    python benchmarks/cores.py [SECONDS]

Servers' processors have several caches of the last level, each of which some cores share. Where a machine is a virtual
one, its cores are moved among the processor's, onto such that share a cache and such that do not; what one has written
then reaches the other three times as slowly, and networks whose layers both compute take up to two fifths longer. The
program prints a line whenever that changes.
"""

from __future__ import annotations

import os
import sys
import threading
import time

import numpy as np

NUMBERS = 2**17
"""A megabyte: more than fits in a core's own fastest cache, less than in the next."""
TURNS = 12
FAR = 2.0
"""Where the caches are shared the ratio is 1.1, else 3.4, measured on EPYC 9004."""
SHARED, APART = "share a cache", "apart"


def where(ratio: float) -> str:
    """What a ratio of `handing_over` says of the cores."""
    return APART if ratio > FAR else SHARED


def handing_over() -> float:
    """How many times as long one of the first two cores that this process may use takes to read what the other has just
    written as to read it once more; 1.0 where there is one core, or none that a thread can be tied to. For a few
    milliseconds it uses both."""
    usable = sorted(os.sched_getaffinity(0))[:2] if hasattr(os, "sched_getaffinity") else []
    if len(usable) < 2:
        return 1.0
    written, read = np.zeros(NUMBERS), np.zeros(NUMBERS)
    first, again = [], []
    turn = threading.Barrier(2)

    def side(number: int) -> None:
        os.sched_setaffinity(0, {usable[number]})  # Of this thread alone.
        for count in range(TURNS):
            mine = count % 2 == number
            if mine:
                written.fill(count)
            turn.wait()
            if not mine:
                for times in (first, again):
                    start = time.perf_counter()
                    np.copyto(read, written)
                    times.append(time.perf_counter() - start)
            turn.wait()

    threads = [threading.Thread(target=side, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return min(first) / min(again)


def main() -> None:
    end = time.monotonic() + float(sys.argv[1] if len(sys.argv) > 1 else 60)
    before = None
    while time.monotonic() < end:
        ratio = handing_over()
        if where(ratio) != before:
            before = where(ratio)
            print(time.strftime("%H:%M:%S"), before, f"({ratio:.1f})", flush=True)
        time.sleep(0.2)


if __name__ == "__main__":
    main()
