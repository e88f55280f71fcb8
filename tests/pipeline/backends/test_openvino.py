"""What OpenVINO computes of an 8-bit graph that was written for ONNX Runtime too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
openvino = pytest.importorskip("openvino")

import onnxruntime  # noqa: E402
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static  # noqa: E402

from toolkit.pipeline.backends.openvino import _round_for_layers_only  # noqa: E402

RNG = np.random.default_rng(0)
CHANNELS = 32
CONV = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}


def _of_groups(source: str, target: str) -> list[tuple[str, list[str], list[str], dict[str, Any]]]:
    """The mean of each group of channels, for each of its channels."""
    return [
        ("Reshape", [source, "groups"], [f"{target}0"], {}),
        ("ReduceSum", [f"{target}0", "axis"], [f"{target}1"], {}),
        ("Mul", [f"{target}1", "half"], [f"{target}2"], {}),
        ("Tile", [f"{target}2", "times"], [f"{target}3"], {}),
        ("Reshape", [f"{target}3", "channels"], [target], {}),
    ]


NODES = {
    "activation": [
        ("Conv", ["x", "w0", "b0"], ["a"], CONV),
        ("Relu", ["a"], ["r"], {}),
        ("Conv", ["r", "w1", "b1"], ["y"], CONV),
    ],
    # A group norm as it is converted.
    "norm": [
        ("Conv", ["x", "w0"], ["a"], CONV),
        ("GlobalAveragePool", ["a"], ["p"], {}),
        *_of_groups("p", "mean"),
        ("Sub", ["a", "mean"], ["s"], {}),
        ("Mul", ["s", "s"], ["square"], {}),
        ("GlobalAveragePool", ["square"], ["v"], {}),
        *_of_groups("v", "variance"),
        ("Sqrt", ["variance"], ["deviation"], {}),
        ("Reciprocal", ["deviation"], ["factor"], {}),
        ("Mul", ["s", "factor"], ["n"], {}),
        ("Relu", ["n"], ["r"], {}),
        ("Conv", ["r", "w1", "b1"], ["y"], CONV),
    ],
}


@pytest.fixture(params=NODES)
def eight_bit(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    """Layers with channels of very different scales, quantised as exports are."""
    scale = np.exp(RNG.normal(0, 0.5, (CHANNELS, 1, 1, 1))).astype(np.float32)
    constants = {
        "w0": scale * RNG.standard_normal((CHANNELS, 3, 3, 3), np.float32),
        "w1": RNG.standard_normal((CHANNELS, CHANNELS, 3, 3), np.float32) / scale.reshape(1, -1, 1, 1),
        **{name: RNG.standard_normal(CHANNELS, np.float32) for name in ("b0", "b1")},
        "axis": np.array([2]),
        "half": np.array([0.5], np.float32),
        "groups": np.array([-1, CHANNELS // 2, 2]),
        "times": np.array([1, 1, 2]),
        "channels": np.array([-1, CHANNELS, 1, 1]),
    }
    kind, shape = onnx.TensorProto.FLOAT, [1, 3, 24, 24]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(k, i, o, name=o[0], **about) for k, i, o, about in NODES[request.param]],
        "graph",
        [onnx.helper.make_tensor_value_info("x", kind, shape)],
        [onnx.helper.make_tensor_value_info("y", kind, None)],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    exact, path = tmp_path / "exact.onnx", tmp_path / "int8.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), exact)

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._feeds = iter([{"x": RNG.standard_normal(shape, np.float32)} for _ in range(4)])

        def get_next(self) -> dict[str, Any] | None:
            return next(self._feeds, None)

    eight: dict[str, Any] = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8, "per_channel": True}
    quantize_static(str(exact), str(path), Reader(), op_types_to_quantize=["Conv"], **eight)
    return request.param, path


def test_an_8_bit_graph_without_the_roundings_that_no_layer_needs(eight_bit: tuple[str, Path]) -> None:
    name, path = eight_bit
    graph = openvino.Core().read_model(str(path))
    _round_for_layers_only(graph)
    [first] = [op for op in graph.get_ops() if op.get_friendly_name() == ("r" if name == "activation" else "s")]
    scaled = first.input_value(0).get_node().get_friendly_name().endswith("_DequantizeLinear")
    assert scaled == (name == "norm")
    x = RNG.standard_normal((1, 3, 24, 24), np.float32)
    found = openvino.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([x])[0]
    exact = onnxruntime.InferenceSession(str(path.with_name("exact.onnx"))).run(None, {"x": x})[0]
    rounded = onnxruntime.InferenceSession(str(path)).run(None, {"x": x})[0]
    error, of_the_file = (np.abs(each - exact).mean() / exact.std() for each in (found, rounded))
    assert error < max(1.1 * of_the_file, 0.02)
