"""How long a training step (forward and backward pass) takes, beside PaddleDetection's figure for the same model.

    python benchmarks/train_step.py MODEL [repetitions]

Runs in a checkout. Two pictures of 256 x 320 with two objects each, 3 classes, 1 and then 2 threads, each count in a
process of its own: Paddle takes it from the environment when it is imported. Then the operators that take most of the
time are listed. What counts is the time of the processor, summed over the threads and divided by their number, so that
whatever else runs on the machine changes little; the time on the wall stands beside it.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

PADDLEDETECTION = {"MaskRCNN-ResNet50-FPN": 5.0, "SOLOv2": 23.0, "Mask-RT-DETR-S": 13.0}
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


def measure(name: str, repetitions: int) -> None:
    """Print seconds of processor and wall, and the top operators; the thread count is the environment's."""
    import paddle

    from toolkit.models import build_model

    paddle.seed(0)
    model = build_model(name, 3, (256, 320))
    model.train()
    data = batch()

    def step() -> None:
        model(data)["loss"].backward()
        model.clear_gradients()

    step()
    busy, wall = [], []
    for _ in range(repetitions):
        start, used = time.perf_counter(), time.process_time()
        step()
        busy.append(time.process_time() - used)
        wall.append(time.perf_counter() - start)
    print(statistics.median(busy), statistics.median(wall))
    from paddle import profiler

    totals: dict[str, float] = defaultdict(float)
    with profiler.Profiler(targets=[profiler.ProfilerTarget.CPU], on_trace_ready=lambda _: None) as watch:
        step()
    for tree in watch.profiler_result.get_data().values():
        pending = [tree]
        while pending:
            node = pending.pop()
            pending.extend(node.children_node)
            if node.type == profiler.TracerEventType.OperatorInner or str(node.type).endswith("Operator"):
                totals[node.name] += (node.end_ns - node.start_ns) / 1e9
    for operator, seconds in sorted(totals.items(), key=lambda item: -item[1])[:TOP]:
        print(f"{seconds:.4f} {operator}")


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit((__doc__ or "").strip())
    name, repetitions = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 5
    if os.environ.get("TRAIN_STEP_THREADS"):
        measure(name, repetitions)
        return
    root = Path(__file__).parents[1]
    reference = PADDLEDETECTION.get(name)
    for threads in ("1", "2"):
        environment = {
            **os.environ,
            "TRAIN_STEP_THREADS": threads,
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
            "PYTHONPATH": str(root),
        }
        done = subprocess.run(
            [sys.executable, __file__, name, str(repetitions)], env=environment, text=True, capture_output=True
        )
        if done.returncode:
            sys.exit(done.stderr)
        print(done.stdout)


if __name__ == "__main__":
    main()
