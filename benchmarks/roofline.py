"""What the network of an exported model would take at the processor's peak, beside what ONNX Runtime takes.

    python benchmarks/roofline.py MODEL_FOLDER PICTURE [--top 8]

The floating-point operations of convolutions and products are counted from the shapes that a run on the picture has; a
multiplication and an addition are two. The peak is that of one large product (2048 x 2048 x 2048) in the same library.
All with one thread. Below the total, the kinds of operators that took most, each with its time and, where its work is
counted, its part of the peak.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper

from toolkit.data.images import read_rgb
from toolkit.pipeline.exported import read_exported

SIDE = 2048
RUNS = 5

Arrays = Mapping[str, NDArray[np.float32]]


def fastest(model: Any, feed: Arrays, *, plain: bool = False, runs: int = RUNS) -> tuple[float, list[dict[str, Any]]]:
    """Seconds of the fastest of `runs`, and what each operator took and had; `plain`: operators as they are written."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.enable_profiling = True
    if plain:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        # Shapes of weights that were packed are not told.
        options.add_session_config_entry("session.disable_prepacking", "1")
    times = []
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(model, sess_options=options, providers=["CPUExecutionProvider"])
        for _ in range(runs):
            start = time.perf_counter()
            session.run(None, {entry.name: feed[entry.name] for entry in session.get_inputs()})
            times.append(time.perf_counter() - start)
        lines = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return min(times), [line for line in lines if line.get("name", "").endswith("_kernel_time")]


def peak() -> float:
    """Operations a second of one large product."""
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [SIDE, SIDE]) for name in "abc"]
    graph = helper.make_graph([helper.make_node("MatMul", ["a", "b"], ["c"])], "product", tensors[:2], tensors[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    values = np.random.default_rng(0).random((SIDE, SIDE), np.float32)
    seconds, _ = fastest(model.SerializeToString(), {"a": values, "b": values})
    return 2 * SIDE**3 / seconds


def operations(event: Mapping[str, Any]) -> int:
    """Of one operator; 0 for those that are not counted."""
    given, made = (
        [shape for entry in event["args"][key] for shape in entry.values()]
        for key in ("input_type_shape", "output_type_shape")
    )
    kind = event["args"]["op_name"]
    if kind == "Conv":
        return int(2 * math.prod(made[0]) * math.prod(given[1][1:]))
    if kind == "ConvTranspose":
        return int(2 * math.prod(given[0]) * math.prod(given[1][1:]))
    if kind in ("MatMul", "Gemm"):
        # [m, k] [k, n], either of them perhaps transposed, gives [m, n].
        inner = math.sqrt(math.prod(given[0][-2:]) * math.prod(given[1][-2:]) / math.prod(made[0][-2:]))
        return round(2 * math.prod(made[0]) * inner)
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--top", type=int, default=8)
    given = parser.parse_args()
    exported = read_exported(given.model)
    prepared = exported.preprocess(read_rgb(given.picture))
    height, width = prepared.image.shape[1:]
    feed = {
        "image": prepared.image[None],
        "im_shape": np.array([[height, width]], np.float32),
        "threshold": np.array([exported.threshold], np.float32),
    }
    graph = str(exported.onnx)
    work: defaultdict[str, int] = defaultdict(int)
    for event in fastest(graph, feed, plain=True, runs=1)[1]:
        work[event["args"]["op_name"]] += operations(event)
    took, events = fastest(graph, feed)
    seconds: defaultdict[str, float] = defaultdict(float)
    for event in events:
        seconds[event["args"]["op_name"].removeprefix("Fused")] += event["dur"] / 1e6 / RUNS
    highest, total = peak(), sum(work.values())
    print(
        f"{exported.model_name} at {height} x {width}: {total / 1e9:.1f} G operations, {1000 * total / highest:.0f} ms "
        f"at the peak of {highest / 1e9:.0f} G a second; it takes {1000 * took:.0f} ms, "
        f"{took * highest / total:.2f} times that"
    )
    for kind in sorted(seconds, key=lambda kind: -seconds[kind])[: given.top]:
        part = f", {work[kind] / seconds[kind] / highest:.2f} of the peak" if work[kind] else ""
        print(f"  {kind}: {1000 * seconds[kind]:.0f} ms{part}")


if __name__ == "__main__":
    main()
