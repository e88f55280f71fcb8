"""How long a training step (forward and backward pass) takes, beside PaddleDetection's.

    python benchmarks/train_step.py MODEL [--repetitions 5]
    PADDLEDET_PYTHON=/path/to/python python benchmarks/train_step.py Mask-RT-DETR-S --beside /path/to/PaddleDetection

Runs in a checkout. Two pictures of 256 x 320 with two objects each and 3 classes, as the golden figures; with 1 and
with 2 threads, each in a process of its own: Paddle takes their number from the environment when it is imported.
With one thread the processor's time counts, so that whatever else runs on the machine changes little; with two, which
wait for each other actively, only the time on the wall means something, and only on a machine with nothing else to do.
Mask-RT-DETR is measured with its denoising, as it is trained, and without, as the golden figures are. `--beside` runs
PaddleDetection's Mask-RT-DETR of a checkout (its develop branch; paddledet 2.6.0 has none) in turn with ours, in an
environment that has what it requires; the other models are compared with what was measured once. Below come the
operators that took most of one step.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

PADDLEDETECTION = {"MaskRCNN-ResNet50-FPN": 5.0, "SOLOv2": 23.0}
"""Seconds a step of the same batch, 1 thread, Paddle 3.3.1 on the machine that the golden figures were measured on."""

TOP = 15


def batch() -> dict[str, Any]:
    import numpy as np
    import paddle

    rng = np.random.default_rng(0)
    image = rng.normal(0, 0.3, (2, 3, 256, 320)).astype("float32")
    result: dict[str, Any] = {"gt_class": [], "gt_bbox": [], "gt_mask": []}
    for canvas in image:
        boxes = np.array([[20, 30, 130, 180], [150, 60, 290, 240]], "float32") + rng.integers(-15, 15, (2, 4))
        masks = np.zeros((2, *canvas.shape[1:]), np.uint8)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.astype(int), strict=True):
            mask[y1:y2, x1:x2] = 1
            canvas[:, y1:y2, x1:x2] += rng.normal(0, 1, (3, 1, 1))
        result["gt_class"].append(paddle.to_tensor(rng.integers(0, 3, 2)))
        result["gt_bbox"].append(paddle.to_tensor(boxes.astype("float32")))
        result["gt_mask"].append(paddle.to_tensor(masks))
    return result | {
        "image": paddle.to_tensor(image),
        "im_shape": paddle.to_tensor([[256.0, 320.0]] * 2),
        "scale_factor": paddle.ones([2, 2]),
    }


def measure(name: str, denoising: int | None, repetitions: int) -> None:
    """Print the medians of processor and wall time, then the top operators."""
    import paddle

    from toolkit.models import build_model

    paddle.seed(0)
    model = build_model(name, 3, (256, 320), **({} if denoising is None else {"num_denoising": denoising}))
    model.train()
    step = step_of(model, batch())
    print(*medians(step, repetitions))
    for operator, seconds in top_operators(step):
        print(f"{seconds:>10.3f}  {operator}")


def step_of(model: Any, data: dict[str, Any]) -> Callable[[], None]:
    def step() -> None:
        model(data)["loss"].backward()
        model.clear_gradients()

    return step


def medians(step: Callable[[], None], repetitions: int) -> tuple[float, float]:
    """Seconds of processor and wall time, after a first step that does not count."""
    step()
    busy, wall = [], []
    for _ in range(repetitions):
        start, used = time.perf_counter(), time.process_time()
        step()
        busy.append(time.process_time() - used)
        wall.append(time.perf_counter() - start)
    return statistics.median(busy), statistics.median(wall)


def top_operators(step: Callable[[], None]) -> list[tuple[str, float]]:
    """Seconds of each operator in one step, the slowest first; those of the backward pass end in `GradNode...`."""
    from paddle import profiler

    totals: dict[str, float] = defaultdict(float)
    with profiler.Profiler(targets=[profiler.ProfilerTarget.CPU], on_trace_ready=lambda _: None) as watch:
        step()
    for tree in watch.profiler_result.get_data().values():
        pending = [tree]
        while pending:
            node = pending.pop()
            pending.extend(node.children_node)
            # Each operator appears within spans of other kinds as well.
            if node.name.endswith(" dygraph") or node.name.startswith("Global_"):
                name = node.name.removesuffix(" dygraph").removeprefix("Global_")
                totals[name] += (node.end_ns - node.start_ns) / 1e9
    return sorted(totals.items(), key=lambda item: -item[1])[:TOP]


def run(command: list[str], threads: int) -> tuple[float, float, list[str]]:
    """Processor and wall time that a process prints at last, or before its operators."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(command, env=environment, text=True, capture_output=True)
    if done.returncode:
        sys.exit(done.stderr)
    lines = done.stdout.splitlines()
    place = next(i for i, line in enumerate(lines) if re.fullmatch(r"[\d.]+ [\d.]+", line))
    busy, wall = map(float, lines[place].split())
    return busy, wall, lines[place + 1 :]


def main() -> None:
    parser = argparse.ArgumentParser(description="Time a training step; see the head of this file.")
    parser.add_argument("model")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--beside", metavar="CHECKOUT", help="a checkout of PaddleDetection, for Mask-RT-DETR")
    parser.add_argument("--denoising", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--here", action="store_true", help="measure in this process, with the environment's threads")
    arguments = parser.parse_args()
    model, repetitions = arguments.model, str(arguments.repetitions)
    if arguments.here:
        measure(model, arguments.denoising, arguments.repetitions)
        return
    if arguments.beside and "PADDLEDET_PYTHON" not in os.environ:
        sys.exit("PADDLEDET_PYTHON does not name a Python that has what PaddleDetection requires")
    reference = PADDLEDETECTION.get(model)
    for threads in (1, 2):
        for denoising in ("100", "0") if model.startswith("Mask-RT-DETR") else (None,):
            options = ["--repetitions", repetitions, "--here"] + (["--denoising", denoising] if denoising else [])
            busy, wall, operators = run([sys.executable, __file__, model, *options], threads)
            of = f" (denoising {denoising})" if denoising else ""
            print(f"{model}{of}, {threads} thread(s): {busy:.2f} s of processor time, {wall:.2f} s of wall time a step")
            if arguments.beside and denoising:
                side = str(Path(__file__).with_name("paddledetection_side.py"))
                command = [os.environ["PADDLEDET_PYTHON"], side, arguments.beside, model, denoising, repetitions]
                their_busy, their_wall, _ = run(command, threads)
                ratio = busy / their_busy if threads == 1 else wall / their_wall
                print(f"PaddleDetection: {their_busy:.2f} s, {their_wall:.2f} s; ours is {ratio:.2f} of it")
            elif reference and threads == 1:
                print(f"{busy / reference:.2f} of PaddleDetection's {reference} s")
            print(*operators, "", sep="\n", flush=True)


if __name__ == "__main__":
    main()
