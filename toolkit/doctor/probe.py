"""What runs in a process of its own: a library is imported, asked for its devices, and made to compute something.

A broken native library can end its process or hang it; the process that asks (`engines.py`) outlives both.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

from toolkit.doctor import tiny_onnx

TOLERANCE = 1e-3
"""All numbers are small and whole, so anything else is a broken library."""


class WrongResultError(Exception):
    """A library computed something else than it should."""


def main(name: str) -> None:
    """Probe the library `name` and print what it says as JSON, as the only thing on standard output."""
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    # Libraries print what they like.
    os.dup2(2, 1)
    try:
        facts = _PROBES[name]()
    except ModuleNotFoundError as error:
        facts = {"state": "missing" if error.name == name else "broken", "error": f"{type(error).__name__}: {error}"}
    except BaseException as error:
        facts = {"state": "broken", "error": f"{type(error).__name__}: {error}"}
    answer.write(json.dumps(facts))
    answer.close()
    # Libraries that crash at the end have done their work.
    os._exit(0)


def _numpy() -> dict[str, Any]:
    import numpy as np

    def compute() -> Sequence[float]:
        windows = np.lib.stride_tricks.sliding_window_view(_input()[0], tiny_onnx.WEIGHT_SHAPE[2:], axis=(1, 2))
        weights = np.array(tiny_onnx.weights(), np.float32).reshape(tiny_onnx.WEIGHT_SHAPE)
        return np.maximum(np.einsum("cyxij,ocij->oyx", windows, weights), 0).reshape(-1).tolist()

    return {"version": np.__version__} | _timed(compute)


def _cv2() -> dict[str, Any]:
    import cv2
    import numpy as np

    def compute() -> Sequence[float]:
        given, weights = _input()[0], np.array(tiny_onnx.weights(), np.float32).reshape(tiny_onnx.WEIGHT_SHAPE)
        layers = [sum(cv2.filter2D(c, -1, w) for c, w in zip(given, each, strict=True)) for each in weights]
        # It pads the border.
        return np.maximum(np.array(layers)[:, 1:-1, 1:-1], 0).reshape(-1).tolist()

    return {"version": cv2.__version__} | _timed(compute)


def _onnxruntime() -> dict[str, Any]:
    # First, so that it is known whether it is the engine that is missing.
    import onnxruntime

    facts = {"version": onnxruntime.__version__, "devices": list(onnxruntime.get_available_providers())}
    given = _input()

    def compute() -> Sequence[float]:
        session = onnxruntime.InferenceSession(tiny_onnx.model(), providers=["CPUExecutionProvider"])
        return session.run(None, {"x": given})[0].reshape(-1).tolist()

    return facts | _timed(compute)


def _openvino() -> dict[str, Any]:
    from toolkit.quiet import import_openvino

    openvino = import_openvino()
    core = openvino.Core()
    devices = [f"{name} ({core.get_property(name, 'FULL_DEVICE_NAME')})" for name in core.available_devices]
    given = _input()

    def compute() -> Sequence[float]:
        graph = core.read_model(tiny_onnx.model(), b"")
        model = core.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        return next(iter(model(given).values())).reshape(-1).tolist()

    return {"version": openvino.__version__, "devices": devices} | _timed(compute)


def _paddle() -> dict[str, Any]:
    import paddle

    from toolkit.device import available_devices

    facts = {
        "version": paddle.__version__,
        "build": _build(paddle),
        "cuda": _word(paddle.version.cuda()),
        "cudnn": _word(paddle.version.cudnn()),
        "devices": available_devices(),
    }
    paddle.set_device("cpu")

    def compute() -> Sequence[float]:
        given = paddle.to_tensor(tiny_onnx.pixels()).reshape(tiny_onnx.INPUT_SHAPE)
        layer = paddle.nn.Conv2D(tiny_onnx.INPUT_SHAPE[1], tiny_onnx.OUTPUT_SHAPE[1], 3, bias_attr=False)
        layer.weight.set_value(paddle.to_tensor(tiny_onnx.weights()).reshape(tiny_onnx.WEIGHT_SHAPE))
        result = paddle.nn.functional.relu(layer(given))
        result.sum().backward()
        if not bool(paddle.isfinite(layer.weight.grad).all()):
            raise WrongResultError("a gradient is not finite")
        return result.flatten().tolist()

    return facts | _timed(compute)


def _input() -> Any:
    import numpy as np

    return np.array(tiny_onnx.pixels(), np.float32).reshape(tiny_onnx.INPUT_SHAPE)


def _build(paddle: Any) -> str:
    for kind in ("rocm", "cuda", "xpu"):
        if getattr(paddle, f"is_compiled_with_{kind}", bool)():
            return kind
    return "cpu"


def _word(version: Any) -> str | None:
    return None if str(version) in ("False", "None", "0", "") else str(version)


def _timed(compute: Callable[[], Sequence[float]]) -> dict[str, Any]:
    start = time.perf_counter()
    result = compute()
    seconds = time.perf_counter() - start
    wanted = tiny_onnx.expected()
    if len(result) != len(wanted) or any(abs(a - b) > TOLERANCE for a, b in zip(result, wanted, strict=True)):
        raise WrongResultError("a convolution came out wrong")
    return {"state": "works", "seconds": round(seconds, 3)}


_PROBES: dict[str, Callable[[], dict[str, Any]]] = {
    "numpy": _numpy,
    "cv2": _cv2,
    "paddle": _paddle,
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
}
