"""Rewriting of the converted ONNX graph, its constants and norms folded: less arithmetic, any number of pictures.

Each rule puts other nodes in the place of one. Those that put fewer linear operators in the place of some change the
rounding alone; the others mend what the converter writes for a single picture.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Made: TypeAlias = tuple[str, Sequence[str], Sequence[str], Mapping[str, Any]]
"""A node to be: kind, inputs, outputs, attributes."""


_DOUBLE = [1, 1, 2, 2]
"""Factors of the sides of a map."""


def rewrite(model: Any) -> None:
    """Rewrite the graph of `model`, an `onnx.ModelProto`, in place.

    Raises RuntimeError if it cuts out regions in a way that is not known here.
    """
    from onnx import shape_inference

    known = shape_inference.infer_shapes(model).graph
    shapes = {
        edge.name: [dim.dim_value for dim in edge.type.tensor_type.shape.dim]
        for edge in (*known.input, *known.value_info)
    }
    graph = _Graph(model.graph, {name: shape for name, shape in shapes.items() if len(shape) == 4})
    graph.drop_unused()
    for rule in RULES:
        for node in list(graph.nodes):
            if (made := rule(graph, node)) is not None:
                graph.replace(node, made)
        graph.drop_unused()


class _Graph:
    """An `onnx.GraphProto`, by the names of its edges.

    Args:
        shapes: of maps `[B, C, h, w]`; 0 stands for what is not known.
    """

    def __init__(self, proto: Any, shapes: Mapping[str, list[int]]) -> None:
        self.nodes = proto.node
        self._shapes = shapes
        self._constants = proto.initializer
        self._outputs = [entry.name for entry in proto.output]
        self._by_name = {entry.name: entry for entry in proto.initializer}
        self._count()

    def _count(self) -> None:
        self._producers = {edge: node for node in self.nodes for edge in node.output}
        self._uses = Counter([*self._outputs, *(edge for node in self.nodes for edge in node.input)])
        self._readers = defaultdict(list)
        for node in self.nodes:
            for edge in node.input:
                self._readers[edge].append(node)

    def channels(self, edge: str) -> int:
        """Of a map; 0 if that is not known."""
        return self._shapes.get(edge, [0] * 4)[1]

    def size(self, edge: str) -> tuple[int, int] | None:
        """Height and width of a map, if they are known."""
        height, width = self._shapes.get(edge, [0] * 4)[2:]
        return (height, width) if height and width else None

    def used(self, edge: str) -> bool:
        return self._uses[edge] > 0

    def readers(self, edge: str) -> list[Any]:
        """The nodes that read `edge`; none if it is an output of the graph, too."""
        return [] if edge in self._outputs else self._readers[edge]

    def value(self, edge: str) -> NDArray[Any] | None:
        """The constant on an edge, if there is one."""
        from onnx import numpy_helper

        return np.array(numpy_helper.to_array(self._by_name[edge])) if edge in self._by_name else None

    def producer(self, edge: str, kind: str) -> Any | None:
        """The node that feeds `edge`, if it is of that kind."""
        node = self._producers.get(edge)
        return node if node is not None and node.op_type == kind else None

    def source(self, edges: Sequence[str], kind: str) -> Any | None:
        """The node of that kind that feeds one of `edges`, and nothing else."""
        found = (self.producer(edge, kind) for edge in edges if self._uses[edge] == 1)
        return next((node for node in found if node is not None), None)

    def origin(self, edge: str, kind: str) -> Any | None:
        """The nearest node of that kind among all that `edge` is computed from."""
        edges, seen = [edge], {edge}
        for edge in edges:  # Grows while it is gone through.
            if (node := self.producer(edge, kind)) is not None:
                return node
            inputs = self._producers[edge].input if edge in self._producers else ()
            further = [name for name in inputs if name not in seen]
            edges += further
            seen.update(further)
        return None

    def constant(self, name: str, value: NDArray[Any]) -> str:
        """Add a constant; returns its name."""
        from onnx import numpy_helper

        self._by_name[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        self._constants.append(self._by_name[name])
        return name

    def replace(self, gone: Any, made: Sequence[Made]) -> None:
        """Put nodes in the place of one; what fed it goes unused."""
        from onnx import helper

        place = list(self.nodes).index(gone)
        self.nodes.remove(gone)
        for offset, (kind, inputs, outputs, attributes) in enumerate(made):
            node = helper.make_node(kind, inputs, outputs, name=f"{outputs[0]}/{kind}", **attributes)
            self.nodes.insert(place + offset, node)
        self._count()

    def drop_unused(self) -> None:
        """Take out nodes and constants that nothing sees."""
        while unused := [node for node in self.nodes if not any(map(self.used, node.output))]:
            for node in unused:
                self.nodes.remove(node)
            self._count()
        for entry in [entry for entry in self._constants if not self.used(entry.name)]:
            self._constants.remove(entry)


def _narrow(graph: _Graph, node: Any) -> list[Made] | None:
    """A product with a constant whose columns are divided, and not all parts used: only those columns."""
    if node.op_type != "Split" or all(map(graph.used, node.output)):
        return None
    added = graph.source(node.input[:1], "Add")
    product = added and graph.source(added.input, "MatMul")
    if not product:
        return None
    weight, bias, sizes = graph.value(product.input[1]), _constant_of(graph, added), graph.value(node.input[-1])
    if weight is None or bias is None or sizes is None or bias.shape != weight.shape[1:] or sizes.sum() != len(bias):
        return None
    kept = [edge for edge in node.output if graph.used(edge)]
    columns = np.repeat([edge in kept for edge in node.output], sizes)
    name = product.output[0]
    inputs = [product.input[0], graph.constant(f"{name}/weight", weight[:, columns])]
    made: list[Made] = [("MatMul", inputs, [f"{name}/kept"], {})]
    inputs = [f"{name}/kept", graph.constant(f"{name}/bias", bias[columns])]
    if len(kept) == 1:
        return [*made, ("Add", inputs, kept, {})]
    left = graph.constant(f"{name}/sizes", np.array([sizes[i] for i, edge in enumerate(node.output) if edge in kept]))
    split: Made = ("Split", [f"{name}/added", left], kept, _attributes(node))
    return [*made, ("Add", inputs, [f"{name}/added"], {}), split]


def _side_by_side(graph: _Graph, node: Any) -> list[Made] | None:
    """The sum of two convolutions of one input, such as a RepVGG block's 3 x 3 and 1 x 1: one convolution."""
    if node.op_type != "Add":
        return None
    first, second = (graph.source([edge], "Conv") for edge in node.input)
    if first is None or second is None or first.input[0] != second.input[0]:
        return None
    (small, inner), (large, outer) = sorted(
        ((_attributes(conv), _constants_of(graph, conv)) for conv in (first, second)),
        key=lambda pair: pair[0]["kernel_shape"],
    )
    alike = all(small.get(key) == large.get(key) for key in ("strides", "group"))
    if inner is None or outer is None or not (alike and _centred(small) and _centred(large)):
        return None
    edge = (outer[0].shape[2] - inner[0].shape[2]) // 2
    weight = outer[0] + np.pad(inner[0], ((0, 0), (0, 0), (edge, edge), (edge, edge)))
    name = node.output[0]
    constants = [graph.constant(f"{name}/weight", weight), graph.constant(f"{name}/bias", inner[1] + outer[1])]
    return [("Conv", [first.input[0], *constants], [name], large)]


def _one_after_the_other(graph: _Graph, node: Any) -> list[Made] | None:
    """A transposed convolution (2 x 2, stride 2) that doubles the size and a 3 x 3 convolution of its outcome, nothing
    between them: four convolutions, 2 x 2, one for each pixel of a cell, with four ninths of the products.

    Along each side a 3 x 3 window sees pixels of two cells only. Beyond the border there is no bias of the doubling:
    what it adds is a map of its own.
    """
    if node.op_type != "Conv" or (size := graph.size(node.input[0])) is None:
        return None
    added = graph.source(node.input[:1], "Add")
    double = added and graph.source(added.input, "ConvTranspose")
    then, outer = _attributes(node), _constants_of(graph, node)
    if not double or outer is None or then["kernel_shape"] != [3, 3] or then["strides"] != [1, 1] or not _centred(then):
        return None
    first, inner, shift = _attributes(double), graph.value(double.input[1]), _constant_of(graph, added)
    doubles = first["kernel_shape"] == first["strides"] == [2, 2] and not any(first.get("pads", ()))
    plain = first.get("group", 1) == then.get("group", 1) == 1
    if inner is None or shift is None or not (doubles and plain and shift.size == inner.shape[1]):
        return None
    # Cell i puts inner[a] into pixel 2 i + a, which outer[b] carries to pixel 2 i + a - b + 1.
    carried = np.zeros((4, 4, len(outer[0]), len(inner)), np.float32)
    for a, c, b, d in np.ndindex(2, 2, 3, 3):
        carried[a - b + 2, c - d + 2] += outer[0][:, :, b, d] @ inner[:, :, a, c].T
    name = node.output[0]
    made: list[Made] = []
    sees = ((3, 1), (2, 0))  # Pixel 2 i sees the cells i - 1 and i, pixel 2 i + 1 the cells i and i + 1.
    for y, x in np.ndindex(2, 2):
        kernel = carried[np.ix_(sees[y], sees[x])].transpose(2, 3, 0, 1)
        inputs = [double.input[0], graph.constant(f"{name}/weight{y}{x}", kernel)]
        settings = {"kernel_shape": [2, 2], "strides": [1, 1], "pads": [1 - y, 1 - x, y, x]}
        made.append(("Conv", inputs, [f"{name}/pixel{y}{x}"], settings))
    made.append(("Concat", [edge for _, _, (edge,), _ in made], [f"{name}/cells"], {"axis": 1}))
    made.append(("DepthToSpace", [f"{name}/cells"], [f"{name}/pixels"], {"blocksize": 2, "mode": "DCR"}))
    # Of the three rows of a window the first row of pixels lacks the one before it, the last row the one behind.
    rows = np.array([[0, 1, 1], [1, 1, 1], [1, 1, 0]], np.float32)
    biases = np.einsum("yb,xd,ombd,m->oyx", rows, rows, outer[0], shift.ravel()) + outer[1][:, None, None]
    table = graph.constant(f"{name}/bias", biases[None])
    for axis, length in enumerate(size, 2):
        kind = np.array([0, *[1] * (length - 2), 2], np.int64)
        inputs = [table, graph.constant(f"{name}/kind{axis}", kind)]
        table = f"{name}/bias{axis}"
        made.append(("Gather", inputs, [table], {"axis": axis}))
    return [*made, ("Add", [f"{name}/pixels", table], [name], {})]


def _doubled(graph: _Graph, node: Any) -> list[Made] | None:
    """Rows put below themselves, of pixels put beside themselves, which is what the networks do for want of an operator
    that all of Paddle's engines run: a Resize."""
    wide = _repeated(graph, node.output[0], axis=3)
    source = wide and _repeated(graph, wide, axis=4)
    if not source:
        return None
    scales = graph.constant(f"{node.output[0]}/scales", np.array(_DOUBLE, np.float32))
    settings = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return [("Resize", [source, "", scales], [node.output[0]], settings)]


def _repeated(graph: _Graph, edge: str, *, axis: int) -> str | None:
    """The map of which `edge` has everything twice in a row, what is put beside itself being on `axis`."""
    flat = graph.producer(edge, "Reshape")
    beside = flat and graph.producer(flat.input[0], "Concat")
    apart = beside and graph.producer(beside.input[0], "Unsqueeze")
    if not (beside and apart) or _attributes(beside)["axis"] != axis or list(beside.input) != [apart.output[0]] * 2:
        return None
    axes = graph.value(apart.input[1])
    return str(apart.input[0]) if axes is not None and axes.tolist() == [axis] else None


def _before_doubling(graph: _Graph, node: Any) -> list[Made] | None:
    """A 1 x 1 convolution of maps side by side, one of them doubled: its part of that one comes before the doubling,
    with a quarter of the products."""
    together = graph.producer(node.input[0], "Concat") if _pointwise(node) else None
    if together is None or _attributes(together)["axis"] != 1:
        return None
    rest = list(together.input)
    double = next((found for found in (graph.producer(edge, "Resize") for edge in rest) if found is not None), None)
    constants = _constants_of(graph, node)
    if double is None or constants is None or len(rest) == 1 or not _doubles(graph, double):
        return None
    which = rest.index(double.output[0])
    counts = [graph.channels(edge) for edge in [*rest[:which], double.input[0], *rest[which + 1 :]]]
    if not all(counts):
        return None
    parts = np.split(constants[0], np.cumsum(counts)[:-1], axis=1)
    rest.pop(which)
    name, settings = node.output[0], _attributes(node)
    made: list[Made] = [
        ("Conv", [double.input[0], graph.constant(f"{name}/coarse", parts.pop(which))], [f"{name}/small"], settings),
        ("Resize", [f"{name}/small", *double.input[1:]], [f"{name}/doubled"], _attributes(double)),
    ]
    if len(rest) > 1:
        made.append(("Concat", rest, [f"{name}/rest"], {"axis": 1}))
        rest = [f"{name}/rest"]
    fine = [graph.constant(f"{name}/weight", np.concatenate(parts, 1)), graph.constant(f"{name}/bias", constants[1])]
    made.append(("Conv", [*rest, *fine], [f"{name}/fine"], settings))
    return [*made, ("Add", [f"{name}/fine", f"{name}/doubled"], [name], {})]


def _doubles(graph: _Graph, resize: Any) -> bool:
    scales = graph.value(resize.input[2])
    return scales is not None and scales.tolist() == _DOUBLE and _attributes(resize)["mode"] == b"nearest"


def _folded(graph: _Graph, node: Any) -> list[Made] | None:
    """A 1 x 1 convolution of another's outcome, nothing between them: one, where that takes fewer products."""
    first = graph.producer(node.input[0], "Conv") if _pointwise(node) else None
    if first is None or not _pointwise(first):
        return None
    inner, outer = _constants_of(graph, first), _constants_of(graph, node)
    readers = graph.readers(first.output[0])
    followers = [graph.value(reader.input[1]) for reader in readers if _pointwise(reader)]
    if inner is None or outer is None or not readers or len(followers) < len(readers):
        return None
    middle, channels = inner[0].shape[:2]
    outputs = sum(len(weight) for weight in followers if weight is not None)
    if outputs * channels >= outputs * middle + middle * channels:
        return None
    name, (a, b) = node.output[0], (constants[0][:, :, 0, 0].astype(np.float64) for constants in (inner, outer))
    weight, bias = (b @ a).astype(np.float32), (b @ inner[1] + outer[1]).astype(np.float32)
    constants = [graph.constant(f"{name}/weight", weight[:, :, None, None]), graph.constant(f"{name}/bias", bias)]
    return [("Conv", [first.input[0], *constants], [name], _attributes(node))]


def _suppressed(graph: _Graph, node: Any) -> list[Made] | None:
    """Where scores that survived suppression are put back among all `[B, C, A]`: by NonMaxSuppression's own rows
    (picture, class, box), for any number of pictures. The converter's way knows a single one."""
    if node.op_type != "ScatterND" or _attributes(node).get("reduction") != b"add":
        return None
    if (suppression := graph.origin(node.input[1], "NonMaxSuppression")) is None:
        return None
    rows, scores, name = suppression.output[0], suppression.input[1], node.output[0]
    start, stop, axis = (graph.constant(f"{name}/{key}", np.array([i])) for key, i in (("1", 1), ("3", 3), ("0", 0)))
    return [
        ("Shape", [scores], [f"{name}/shape"], {}),
        # Of a flat array of all scores: how far pictures, classes and boxes lie apart.
        ("Slice", [f"{name}/shape", start, stop, axis], [f"{name}/inner"], {}),
        ("ReduceProd", [f"{name}/inner"], [f"{name}/picture"], {"keepdims": 1}),
        ("Slice", [f"{name}/shape", graph.constant(f"{name}/2", np.array([2])), stop, axis], [f"{name}/class"], {}),
        ("Concat", [f"{name}/picture", f"{name}/class", start], [f"{name}/strides"], {"axis": 0}),
        ("Mul", [rows, f"{name}/strides"], [f"{name}/steps"], {}),
        ("ReduceSum", [f"{name}/steps", start], [f"{name}/places"], {"keepdims": 1}),
        ("Reshape", [scores, graph.constant(f"{name}/-1", np.array([-1]))], [f"{name}/scores"], {}),
        ("GatherND", [f"{name}/scores", f"{name}/places"], [f"{name}/survivors"], {}),
        ("ScatterND", [node.input[0], f"{name}/places", f"{name}/survivors"], [name], _attributes(node)),
    ]


def _cut_out(graph: _Graph, node: Any) -> list[Made] | None:
    """Regions cut out of maps, some of all boxes `[B, S, 4]`: each of its own picture. The converter's way takes all of
    the first."""
    if node.op_type != "RoiAlign":
        return None
    chosen = graph.producer(node.input[1], "Gather")
    boxes = chosen and graph.producer(chosen.input[0], "Reshape")
    if chosen is None or boxes is None:
        raise RuntimeError(f"{node.name}: what is cut out is not chosen among boxes")
    name = node.output[0]
    return [
        ("Shape", [boxes.input[0]], [f"{name}/shape"], {}),
        ("Gather", [f"{name}/shape", graph.constant(f"{name}/1", np.array(1))], [f"{name}/boxes"], {}),
        ("Div", [chosen.input[1], f"{name}/boxes"], [f"{name}/pictures"], {}),
        ("RoiAlign", [*node.input[:2], f"{name}/pictures"], [name], _attributes(node)),
    ]


def _attributes(node: Any) -> dict[str, Any]:
    from onnx import helper

    return {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}


def _constant_of(graph: _Graph, node: Any) -> NDArray[Any] | None:
    """The constant among a node's inputs."""
    return next((value for value in map(graph.value, node.input) if value is not None), None)


def _constants_of(graph: _Graph, conv: Any) -> tuple[Array, Array] | None:
    """Weight and bias of a convolution, if they are constant."""
    weight = graph.value(conv.input[1])
    if weight is None:
        return None
    bias = graph.value(conv.input[2]) if len(conv.input) > 2 else np.zeros(len(weight), np.float32)
    return None if bias is None else (weight, bias)


def _pointwise(node: Any) -> bool:
    """Whether a node is a convolution, 1 x 1, of all channels and pixels."""
    if node.op_type != "Conv":
        return False
    about = _attributes(node)
    plain = about.get("group", 1) == 1 and about.get("strides", [1, 1]) == [1, 1]
    return plain and about["kernel_shape"] == [1, 1] and _centred(about)


def _centred(conv: Mapping[str, Any]) -> bool:
    """Whether the windows of a convolution are odd, square, and centred on the pixels they start from."""
    side = conv["kernel_shape"][0]
    return (
        side % 2 == 1
        and conv["kernel_shape"] == [side, side]
        and conv.get("pads", [0] * 4) == [side // 2] * 4
        and conv.get("dilations", [1, 1]) == [1, 1]
        and conv.get("auto_pad", b"NOTSET") == b"NOTSET"
    )


# In this order: what one of them makes, those behind it may go on with.
RULES = (
    _narrow,
    _side_by_side,
    _one_after_the_other,
    _doubled,
    _before_doubling,
    _folded,
    _suppressed,
    _cut_out,
)
