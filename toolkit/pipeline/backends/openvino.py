"""OpenVINO on the CPU, in f32, bf16 or int8."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit import cores
from toolkit.data.detections import Floats
from toolkit.pipeline.backends.engines import ENGINES
from toolkit.pipeline.backends.graph import FastGraph, known_inputs, not_loadable
from toolkit.pipeline.exported import Exported


def load(exported: Exported, name: str, *, device: str, threads: int | None) -> FastGraph:
    """`inference.onnx`, or `inference.int8.onnx` for the engine of that precision."""
    import openvino

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
        # A picture at a time, since where shapes are open fewer operators are fused: 8-bit graphs take twice as long.
        # Several at once gain nothing on a CPU.
        graph.reshape({given: _of_one(given) for given in graph.inputs})
        model = core.compile_model(graph, "CPU", settings)
    except Exception as error:
        raise not_loadable(path, error) from None
    requests = threading.local()
    inputs = known_inputs(path, [given.get_any_name() for given in model.inputs])

    def network(image: Floats, im_shape: Floats, threshold: Floats) -> list[NDArray[np.generic]]:
        feed = {"image": image, "im_shape": im_shape, "threshold": threshold}
        if not hasattr(requests, "own"):
            requests.own = model.create_infer_request()
        # A copy: the arrays that a request returns are overwritten by its next run.
        result = requests.own.infer({key: feed[key] for key in inputs})
        return [np.array(result[output]) for output in model.outputs]

    return FastGraph(exported, name, network, at_once=1, shared=True)


def _of_one(given: Any) -> Any:
    """The shape of an input for one picture."""
    shape = given.get_partial_shape()
    shape[0] = 1
    return shape
