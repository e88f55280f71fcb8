"""ONNX Runtime: on the CPU, and through its CUDA and TensorRT providers, which are not run here, on a GPU."""

from __future__ import annotations

from typing import Any

from toolkit import cores
from toolkit.errors import UserError
from toolkit.pipeline.backends.engines import ENGINES
from toolkit.pipeline.backends.graph import BATCH, FastGraph, not_loadable
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
    inputs = session.get_inputs()
    most = inputs[0].shape[0]
    return FastGraph(
        exported,
        name,
        path,
        inputs=[given.name for given in inputs],
        run=lambda feed: session.run(None, feed),
        at_once=most if isinstance(most, int) else None,
    )
