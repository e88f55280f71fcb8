"""Rewriting of graphs: what they compute stays, within rounding, and their operators become fewer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from toolkit.export.rewrite import rewrite  # noqa: E402

Node = tuple[str, Sequence[str], Sequence[str], dict[str, Any]]
RNG = np.random.default_rng(0)


def graph(nodes: Sequence[Node], shape: Sequence[int | str], **constants: np.ndarray) -> Any:
    """A model from `x`, float32, to `y` and whatever else ends in `_out`."""
    ends = [edge for _, _, outputs, _ in nodes for edge in outputs if edge == "y" or edge.endswith("_out")]
    kind = onnx.TensorProto.FLOAT
    made = onnx.helper.make_graph(
        [onnx.helper.make_node(kind, inputs, outputs, **attributes) for kind, inputs, outputs, attributes in nodes],
        "graph",
        [onnx.helper.make_tensor_value_info("x", kind, shape)],
        [onnx.helper.make_tensor_value_info(edge, kind, None) for edge in ends],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)


def run(model: Any, x: np.ndarray) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    outputs: list[np.ndarray] = session.run(None, {"x": x})
    return outputs


def kinds_after(model: Any, *shape: int) -> list[str]:
    """Rewrite the graph, hold what it computes against what it computed, and return its operators."""
    x = RNG.standard_normal(shape, np.float32)
    before = run(model, x)
    rewrite(model)
    for old, new in zip(before, run(model, x), strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-4, atol=1e-4)
    return sorted(node.op_type for node in model.graph.node)


def noise(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape, np.float32)


def conv(source: str, target: str, side: int, **about: Any) -> Node:
    settings = {"kernel_shape": [side, side], "strides": [1, 1], "pads": [side // 2] * 4, **about}
    return ("Conv", [source, f"{target}_w", f"{target}_b"], [target], settings)


@settings(deadline=None, max_examples=20)
@given(
    sides=st.tuples(st.sampled_from([1, 3, 5]), st.sampled_from([1, 3, 5])),
    stride=st.integers(1, 2),
    group=st.sampled_from([1, 2]),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
)
def test_convolutions_side_by_side(sides: tuple[int, int], stride: int, group: int, size: tuple[int, int]) -> None:
    about = {"strides": [stride, stride], "group": group}
    nodes = [conv("x", "a", sides[0], **about), conv("x", "b", sides[1], **about), ("Add", ["a", "b"], ["y"], {})]
    weights = {f"{name}_w": noise(6, 4 // group, side, side) for name, side in zip("ab", sides, strict=True)}
    model = graph(nodes, [1, 4, *size], **weights, a_b=noise(6), b_b=noise(6))
    assert kinds_after(model, 1, 4, *size) == ["Conv"]


@pytest.mark.parametrize("about", [{"pads": [0, 0, 2, 2]}, {"pads": [2] * 4, "dilations": [2, 2]}, {"group": 2}])
def test_convolutions_of_other_windows_stay_apart(about: dict[str, Any]) -> None:
    nodes = [conv("x", "a", 3), conv("x", "b", 3, **about), ("Add", ["a", "b"], ["y"], {})]
    weights = {"a_w": noise(6, 4, 3, 3), "b_w": noise(6, 4 // about.get("group", 1), 3, 3)}
    assert kinds_after(graph(nodes, [1, 4, 6, 7], **weights, a_b=noise(6), b_b=noise(6)), 1, 4, 6, 7).count("Conv") == 2


@pytest.mark.parametrize(
    "nodes",
    [
        pytest.param([("Relu", ["x"], ["r"], {}), conv("x", "a", 3), conv("r", "b", 1)], id="another input"),
        pytest.param([conv("x", "a", 3), conv("x", "b", 1), ("Relu", ["a"], ["a_out"], {})], id="seen elsewhere"),
    ],
)
def test_convolutions_that_stay_apart(nodes: list[Node]) -> None:
    weights = {"a_w": noise(6, 4, 3, 3), "b_w": noise(6, 4, 1, 1)}
    model = graph([*nodes, ("Add", ["a", "b"], ["y"], {})], [1, 4, 6, 7], **weights, a_b=noise(6), b_b=noise(6))
    assert kinds_after(model, 1, 4, 6, 7).count("Conv") == 2


@settings(deadline=None, max_examples=20)
@given(size=st.tuples(st.integers(1, 7), st.integers(1, 7)), channels=st.tuples(*[st.integers(1, 5)] * 3))
def test_a_doubling_before_a_convolution(size: tuple[int, int], channels: tuple[int, int, int]) -> None:
    model = doubling(size, channels)
    kinds = kinds_after(model, 2, channels[0], *size)
    assert kinds == sorted(["Conv"] * 4 + ["Concat", "DepthToSpace", "Gather", "Gather", "Add", "Relu"])


def doubling(size: Sequence[int | str], channels: tuple[int, int, int], between: str | None = None) -> Any:
    first, middle, last = channels
    nodes: list[Node] = [
        ("ConvTranspose", ["x", "d_w"], ["d"], {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("Add", ["d", "d_b"], ["e"], {}),
        *([(between, ["e"], ["f"], {})] if between else []),
        conv("f" if between else "e", "c", 3),
        ("Relu", ["c"], ["y"], {}),
    ]
    weights = {"d_w": noise(first, middle, 2, 2), "d_b": noise(1, middle, 1, 1)}
    return graph(nodes, [2, first, *size], **weights, c_w=noise(last, middle, 3, 3), c_b=noise(last))


def test_a_doubling_of_unknown_size_stays() -> None:
    assert "ConvTranspose" in kinds_after(doubling(["h", "w"], (3, 4, 5)), 2, 3, 4, 5)


def test_a_doubling_with_an_activation_behind_it_stays() -> None:
    assert "ConvTranspose" in kinds_after(doubling([4, 5], (3, 4, 5), between="Relu"), 2, 3, 4, 5)


@pytest.mark.parametrize("used", [(0, 1), (2,), (1,), (0, 2), (0, 1, 2)])
def test_columns_that_nobody_reads(used: tuple[int, ...]) -> None:
    nodes: list[Node] = [
        ("MatMul", ["x", "w"], ["m"], {}),
        ("Add", ["m", "b"], ["a"], {}),
        ("Split", ["a", "parts"], ["p0", "p1", "p2"], {"axis": 2}),
        # What is done with a part that nothing sees goes too.
        *(("Neg", [f"p{i}"], [f"p{i}_out" if i in used else f"gone{i}"], {}) for i in range(3)),
    ]
    parts = np.array([2, 3, 4])
    model = graph(nodes, [1, 5, 8], w=noise(8, 9), b=noise(9), parts=parts)
    kinds = kinds_after(model, 1, 5, 8)
    assert kinds == sorted(["MatMul", "Add", *["Neg"] * len(used), *(["Split"] if len(used) > 1 else [])])
    [product] = [node for node in model.graph.node if node.op_type == "MatMul"]
    [weight] = [entry for entry in model.graph.initializer if entry.name == product.input[1]]
    assert list(weight.dims) == [8, parts[list(used)].sum()]


def doubled(source: str, target: str) -> list[Node]:
    """Pixels beside themselves, rows below themselves, as `upsample2x_nearest` is converted."""
    return [
        ("Unsqueeze", [source, "four"], [f"{target}1"], {}),
        ("Concat", [f"{target}1", f"{target}1"], [f"{target}2"], {"axis": 4}),
        ("Reshape", [f"{target}2", f"{target}_wide"], [f"{target}3"], {}),
        ("Unsqueeze", [f"{target}3", "three"], [f"{target}4"], {}),
        ("Concat", [f"{target}4", f"{target}4"], [f"{target}5"], {"axis": 3}),
        ("Reshape", [f"{target}5", f"{target}_high"], [target], {}),
    ]


def doublings(target: str, channels: int, height: int, width: int) -> dict[str, np.ndarray]:
    wide, high = [-1, channels, height, 2 * width], [-1, channels, 2 * height, 2 * width]
    shapes = {f"{target}_wide": np.array(wide), f"{target}_high": np.array(high)}
    return {"four": np.array([4]), "three": np.array([3]), **shapes}


@settings(deadline=None, max_examples=10)
@given(size=st.tuples(st.integers(1, 7), st.integers(1, 7)), channels=st.integers(1, 3))
def test_pixels_beside_and_rows_below_themselves(size: tuple[int, int], channels: int) -> None:
    model = graph(doubled("x", "y"), [2, channels, *size], **doublings("y", channels, *size))
    assert kinds_after(model, 2, channels, *size) == ["Resize"]


@pytest.mark.parametrize("axis", ["four", "three"])
def test_other_repetitions_stay(axis: str) -> None:
    """The same operators with pixels beside, or rows below, those of other maps."""
    nodes = doubled("x", "y")
    at = 1 if axis == "four" else 4
    kind, inputs, outputs, about = nodes[at]
    nodes[at] = (kind, [inputs[0], "other"], outputs, about)
    nodes.insert(at, ("Neg", [inputs[0]], ["other"], {}))
    assert "Resize" not in kinds_after(graph(nodes, [1, 2, 3, 4], **doublings("y", 2, 3, 4)), 1, 2, 3, 4)


@settings(deadline=None, max_examples=20)
@given(
    size=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    channels=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    place=st.integers(0, 3),
)
def test_a_convolution_of_maps_of_which_one_was_doubled(size: tuple[int, int], channels: list[int], place: int) -> None:
    place = min(place, len(channels))
    names = [f"f{i}" for i in range(len(channels))]
    height, width = size
    nodes = doubled("x", "d")
    weights = doublings("d", 5, height, width)
    for name, count in zip(names, channels, strict=True):
        # Other maps of twice the size, made of the only input.
        nodes += [
            ("Conv", ["d", f"{name}_w"], [f"{name}_c"], {"kernel_shape": [1, 1]}),
            ("Relu", [f"{name}_c"], [name], {}),
        ]
        weights[f"{name}_w"] = noise(count, 5, 1, 1)
    edges = [*names[:place], "d", *names[place:]]
    nodes += [("Concat", edges, ["all"], {"axis": 1}), conv("all", "y", 1), conv("all", "b", 1)]
    nodes.append(("Relu", ["b"], ["b_out"], {}))
    total = 5 + sum(channels)
    weights |= {"y_w": noise(6, total, 1, 1), "y_b": noise(6), "b_w": noise(2, total, 1, 1), "b_b": noise(2)}
    model = graph(nodes, [1, 5, height, width], **weights)
    kinds = kinds_after(model, 1, 5, height, width)
    assert kinds.count("Resize") == 3, "what was doubled once, and what each of the two convolutions makes of it"
    assert kinds.count("Concat") == (2 if len(channels) > 1 else 0)
    assert kinds.count("Add") == 2


@pytest.mark.parametrize(
    ("inner", "outer", "folded"),
    [
        pytest.param((8, 8), [8], True, id="one after the other"),
        pytest.param((8, 8), [4, 8, 2], True, id="several after one"),
        pytest.param((16, 8), [8], True, id="fewer in between"),
        pytest.param((16, 4), [16], False, id="a bottleneck"),
        pytest.param((16, 8), [16, 16, 16], False, id="several after a bottleneck"),
    ],
)
def test_pointwise_convolutions_one_after_the_other(inner: tuple[int, int], outer: list[int], folded: bool) -> None:
    channels, middle = inner
    nodes = [conv("x", "a", 1)]
    weights = {"a_w": noise(middle, channels, 1, 1), "a_b": noise(middle)}
    for i, outputs in enumerate(outer):
        nodes += [conv("a", f"c{i}", 1), ("Relu", [f"c{i}"], [f"r{i}_out"], {})]
        weights |= {f"c{i}_w": noise(outputs, middle, 1, 1), f"c{i}_b": noise(outputs)}
    kinds = kinds_after(graph(nodes, [2, channels, 3, 5], **weights), 2, channels, 3, 5)
    assert kinds.count("Conv") == len(outer) + (not folded)


@pytest.mark.parametrize(
    "more",
    [
        pytest.param([("Relu", ["a"], ["seen_out"], {})], id="seen elsewhere"),
        pytest.param([("Identity", ["a"], ["a_out"], {})], id="an output"),
        pytest.param([conv("a", "wide_out", 3)], id="another window"),
    ],
)
def test_pointwise_convolutions_that_stay(more: list[Node]) -> None:
    nodes = [conv("x", "a", 1), conv("a", "y", 1), *more]
    weights = {f"{name}_w": noise(4, 4, 1, 1) for name in "ay"} | {f"{name}_b": noise(4) for name in "ay"}
    weights |= {"wide_out_w": noise(4, 4, 3, 3), "wide_out_b": noise(4)}
    kinds = kinds_after(graph(nodes, [1, 4, 3, 5], **weights), 1, 4, 3, 5)
    assert kinds.count("Conv") == 2 + (more[0][0] == "Conv")
