"""Which layers become 8-bit; how they run is in test_engines.py."""

from __future__ import annotations

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from toolkit.export.int8 import _kept  # noqa: E402

LAYERS = [
    ("Conv", ["image", "stem_w"], "stem"),
    ("Conv", ["stem", "body_w"], "body"),
    ("MatMul", ["rows", "body"], "resized"),  # Both of them no layer: rows of weights, and columns.
    ("MatMul", ["resized", "columns"], "enlarged"),
    ("Conv", ["enlarged", "narrow_w"], "narrow"),
    ("MatMul", ["enlarged", "hidden_w"], "hidden"),
    ("Add", ["hidden", "hidden_b"], "hidden+"),
    # What says which ones, and where, is said as exactly as before.
    ("MatMul", ["hidden+", "score_w"], "score"),
    ("Add", ["score_b", "score"], "score+"),
    ("TopK", ["score+", "k"], "best"),
    ("Gather", ["hidden+", "best"], "chosen"),
    ("MatMul", ["chosen", "place_w"], "place"),
    ("Add", ["place", "place_b"], "place+"),
    ("Conv", ["enlarged", "value_w"], "value"),
    ("GridSample", ["value", "place+"], "seen"),
    ("MatMul", ["seen", "mixed_w"], "mixed"),
    ("Add", ["mixed", "mixed_b"], "mixed+"),
    ("RoiAlign", ["mixed+", "place+", "zeros"], "cut"),
    ("Conv", ["cut", "mask_w"], "mask"),
    ("Conv", ["mask", "last_w"], "last"),
]
CONVOLUTIONS = {"stem": 32, "body": 32, "narrow": 15, "value": 32, "mask": 32, "last": 32}


def test_what_goes_on_becomes_8_bit_and_what_says_something_stays() -> None:
    nodes = [onnx.helper.make_node(kind, inputs, [output], name=output) for kind, inputs, output in LAYERS]
    edges = {edge for _, inputs, _ in LAYERS for edge in inputs}
    shapes = {f"{name}_w": (channels, 32, 3, 3) for name, channels in CONVOLUTIONS.items()}
    shapes |= {edge: (32, 32) for edge in edges if edge.endswith("_w") and edge not in shapes}
    shapes |= {edge: (32,) for edge in edges if edge.endswith("_b")} | {"rows": (64, 32), "columns": (32, 64)}
    constants = [onnx.numpy_helper.from_array(np.zeros(shape, np.float32), name) for name, shape in shapes.items()]
    graph = onnx.helper.make_graph(nodes, "graph", [], [], constants)
    assert set(_kept(graph)) == {"resized", "enlarged", "narrow", "score", "place", "last"}
