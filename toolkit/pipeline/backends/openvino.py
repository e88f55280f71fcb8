"""OpenVINO on the CPU, in f32, bf16 or int8."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit import cores
from toolkit.data.detections import Floats
from toolkit.pipeline.backends.engines import ENGINES
from toolkit.pipeline.backends.graph import FastGraph, not_loadable
from toolkit.pipeline.exported import Exported
from toolkit.quiet import import_openvino

_SCALED = "_DequantizeLinear"
_NORMS = {"ReduceMean", "MVN"}
"""Of numbers that come unrounded from an 8-bit layer, OpenVINO (2026.4) gets SOLOv2's norms of groups wrong: no mask is
right any more."""


def load(exported: Exported, name: str, *, device: str, threads: int | None) -> FastGraph:
    """`inference.onnx`, or `inference.int8.onnx` for the engine of that precision."""
    openvino = import_openvino()
    path = ENGINES[name].graph(exported)
    threads = threads or cores()
    streams = max(1, cores() // threads)
    settings = {
        # Said always, since OpenVINO takes bf16 by itself where the processor has it. What is not 8-bit takes it too.
        "INFERENCE_PRECISION_HINT": "f32" if ENGINES[name].precision == "f32" else "bf16",
        # A caller's run has one stream, and that its share of the threads.
        "NUM_STREAMS": streams,
        "INFERENCE_NUM_THREADS": threads * streams,
        # Pinned threads of several processes, or of this one's other work, would wait for the same core.
        "ENABLE_CPU_PINNING": False,
    }
    core = openvino.Core()
    try:
        graph = core.read_model(str(path))
        if ENGINES[name].precision == "int8":
            _round_for_layers_only(graph)
        # A picture at a time, since where shapes are open fewer operators are fused: 8-bit graphs take twice as long.
        # Several at once gain nothing on a CPU.
        graph.reshape({given: _of_one(given) for given in graph.inputs})
        model = core.compile_model(graph, "CPU", settings)
    except Exception as error:
        raise not_loadable(path, error) from None
    requests = threading.local()

    def run(feed: dict[str, Floats]) -> list[NDArray[np.generic]]:
        if not hasattr(requests, "own"):
            requests.own = model.create_infer_request()
        # A copy: the arrays that a request returns are overwritten by its next run.
        result = requests.own.infer(feed)
        return [np.array(result[output]) for output in model.outputs]

    inputs = [given.get_any_name() for given in model.inputs]
    return FastGraph(exported, name, path, inputs=inputs, run=run, at_once=1)


def _of_one(given: Any) -> Any:
    """The shape of an input for one picture."""
    shape = given.get_partial_shape()
    shape[0] = 1
    return shape


def _round_for_layers_only(graph: Any) -> None:
    """Give what is rounded to 8 bits to the layers that compute in 8 bits, and to all else what it was before.

    ONNX Runtime computes in 8 bits only between two roundings, so that the file rounds what layers say, too. Without
    that a layer, what follows it and the rounding for the next layer are one operator here.
    """
    for scaled in graph.get_ops():
        if scaled.get_friendly_name().endswith(_SCALED) and (rounded := _origin(scaled)).get_input_size():
            readers = scaled.output(0).get_target_inputs()
            if _NORMS.intersection(reader.get_node().get_type_name() for reader in readers):
                continue
            for reader in readers:
                if not _in_8_bits(reader.get_node()):
                    reader.replace_source_output(rounded.input_value(0))


def _origin(scaled: Any) -> Any:
    """The FakeQuantize, or the constant, behind what was scaled back from 8 bits."""
    while scaled.get_input_size() and scaled.get_type_name() != "FakeQuantize":
        scaled = scaled.input_value(0).get_node()
    return scaled


def _in_8_bits(node: Any) -> bool:
    """Whether a node is a layer whose weights have 8 bits."""
    if node.get_type_name() not in ("Convolution", "GroupConvolution", "MatMul"):
        return False
    weights = node.input_value(1).get_node()
    return weights.get_friendly_name().endswith(_SCALED) and not _origin(weights).get_input_size()
