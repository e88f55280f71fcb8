from __future__ import annotations

import numpy as np
import pytest

from toolkit.doctor import tiny_onnx


def test_the_onnx_package_takes_the_file() -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string(tiny_onnx.model())
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["Conv", "Relu"]
    weights = onnx.numpy_helper.to_array(model.graph.initializer[0])
    assert weights.shape == tiny_onnx.WEIGHT_SHAPE
    assert weights.reshape(-1).tolist() == tiny_onnx.weights()


def test_the_expected_numbers_are_those_of_numpy() -> None:
    given = np.array(tiny_onnx.pixels()).reshape(tiny_onnx.INPUT_SHAPE)[0]
    weights = np.array(tiny_onnx.weights()).reshape(tiny_onnx.WEIGHT_SHAPE)
    windows = np.lib.stride_tricks.sliding_window_view(given, (3, 3), axis=(1, 2))
    wanted = np.maximum(np.einsum("cyxij,ocij->oyx", windows, weights), 0)
    assert tiny_onnx.expected() == wanted.reshape(-1).tolist()
    assert wanted.shape == tiny_onnx.OUTPUT_SHAPE[1:]
    assert 0 < np.count_nonzero(wanted) < wanted.size
