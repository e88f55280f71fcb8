"""ONNX Runtime: on the CPU, and through its CUDA and TensorRT providers, which are not run here, on a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit import cores
from toolkit.data.detections import Floats
from toolkit.errors import UserError
from toolkit.pipeline.backends.engines import ENGINES
from toolkit.pipeline.backends.graph import BATCH, FastGraph, known_inputs, not_loadable
from toolkit.pipeline.exported import Exported

_PROVIDERS = {"onnxruntime_cuda": "CUDAExecutionProvider", "onnxruntime_tensorrt": "TensorrtExecutionProvider"}


def load(exported: Exported, name: str, *, device: str, threads: int | None) -> FastGraph:
    """`inference.onnx`, or `inference.int8.onnx` for the engine of that precision."""
    import onnxruntime

    provider = _PROVIDERS.get(name, "CPUExecutionProvider")
    if provider not in onnxruntime.get_available_providers():
        raise UserError(f"engine {name}: this ONNX Runtime has no {provider}; `pip install {ENGINES[name].package}`")
    settings: dict[str, Any] = {}
    if name in _PROVIDERS:
        settings["device_id"] = int(device.partition(":")[2] or 0)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or cores()
    options.log_severity_level = 3
    if provider == "CPUExecutionProvider":
        # What is known is faster, and several at once gain nothing on a CPU.
        options.add_free_dimension_override_by_name(BATCH, 1)
    path = ENGINES[name].graph(exported)
    try:
        session = onnxruntime.InferenceSession(str(path), sess_options=options, providers=[(provider, settings)])
    except Exception as error:
        raise not_loadable(path, error) from None
    inputs = known_inputs(path, [given.name for given in session.get_inputs()])
    most = session.get_inputs()[0].shape[0]

    def network(image: Floats, im_shape: Floats, threshold: Floats) -> list[NDArray[np.generic]]:
        feed = {"image": image, "im_shape": im_shape, "threshold": threshold}
        outputs: list[NDArray[np.generic]] = session.run(None, {key: feed[key] for key in inputs})
        return outputs

    return FastGraph(exported, name, network, at_once=most if isinstance(most, int) else None, shared=True)
