"""OpenVINO on the CPU, in f32, bf16 or int8."""

from __future__ import annotations

import threading

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
    try:
        model = openvino.Core().compile_model(str(path), "CPU", settings)
    except Exception as error:
        raise not_loadable(path, error) from None
    requests = threading.local()
    inputs = known_inputs(path, [given.get_any_name() for given in model.inputs])
    most = model.inputs[0].get_partial_shape()[0]

    def network(image: Floats, im_shape: Floats, threshold: Floats) -> list[NDArray[np.generic]]:
        feed = {"image": image, "im_shape": im_shape, "threshold": threshold}
        if not hasattr(requests, "own"):
            requests.own = model.create_infer_request()
        # A copy: the arrays that a request returns are overwritten by its next run.
        result = requests.own.infer({key: feed[key] for key in inputs})
        return [np.array(result[output]) for output in model.outputs]

    return FastGraph(exported, name, network, at_once=most.get_length() if most.is_static else None, shared=True)
