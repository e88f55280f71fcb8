"""The fast graph: a model's `network` as inference.onnx, with low-resolution masks."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from paddle import Tensor, nn
from paddle.static import InputSpec

from toolkit.export.rewrite import rewrite
from toolkit.export.static import trace, verbatim
from toolkit.pipeline.backends.graph import BATCH
from toolkit.quiet import captured
from toolkit.recipe import Data

OPSET = 17
"""grid_sample came with 16, layer normalisation with 17."""

OUTPUTS = ("boxes", "scores", "labels", "mask_logits")


class _Network(nn.Layer):
    def __init__(self, model: nn.Layer) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor, im_shape: Tensor, threshold: Tensor) -> tuple[Tensor, ...]:
        return tuple(verbatim(self.model.network, image, im_shape, threshold))


def missing_converter() -> str | None:
    """Why no ONNX file can be written here, or None."""
    if find_spec("paddle2onnx") is None:
        return "paddle2onnx is not installed (it has no wheel for Python 3.13)"
    return None


def save_onnx(model: nn.Layer, folder: Path, *, data: Data) -> Path:
    """Write `inference.onnx`: `image` `[B, 3, h, w]`, `threshold` `[1]`, and `im_shape` `[B, 2]` where the network
    looks at it -> `boxes`, `scores`, `labels`, `mask_logits`.

    Raises RuntimeError if the converter cannot convert the network.
    """
    import onnx
    import paddle2onnx

    height, width = (None, None) if data.keep_ratio else data.input_size
    with TemporaryDirectory() as scratch:
        stem = Path(scratch) / "network"
        spec = [
            InputSpec([None, 3, height, width], "float32", "image"),
            InputSpec([None, 2], "float32", "im_shape"),
            InputSpec([1], "float32", "threshold"),
        ]
        trace(_Network(model), spec, stem)
        with captured() as output:
            try:
                # Without a file name it returns the bytes; with one it runs Polygraphy, which installs packages.
                content = paddle2onnx.export(f"{stem}.json", f"{stem}.pdiparams", None, opset_version=OPSET)
            except UnboundLocalError:
                content = None  # It prints its errors and goes on without a result.
        if content is None:
            raise RuntimeError(f"paddle2onnx cannot convert the network: {output()[-500:]}")
    graph = onnx.load_from_string(content)
    _rename_outputs(graph.graph)
    _drop_unused_inputs(graph.graph)
    for node in graph.graph.node:
        if node.op_type == "RoiAlign":
            # paddle2onnx 2.1 leaves it out, and then regions lie half a pixel beside where `aligned=False` has them.
            node.attribute.append(onnx.helper.make_attribute("coordinate_transformation_mode", "output_half_pixel"))
    onnx.checker.check_model(graph)
    path = folder / "inference.onnx"
    _fold(graph.SerializeToString(), path)
    graph = onnx.load(path)
    rewrite(graph)
    for given in graph.graph.input:
        if given.name != "threshold":
            given.type.tensor_type.shape.dim[0].dim_param = BATCH
    onnx.checker.check_model(graph)
    onnx.save(graph, path)
    return path


def _fold(graph: bytes, path: Path) -> None:
    """Write the graph with constants computed and norms folded into convolutions: any engine then loads it faster."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC  # Standard operators only.
    options.optimized_model_filepath = str(path)
    onnxruntime.InferenceSession(graph, sess_options=options, providers=["CPUExecutionProvider"])


def _drop_unused_inputs(graph: Any) -> None:
    used = {name for node in graph.node for name in node.input}
    for given in [given for given in graph.input if given.name not in used]:
        graph.input.remove(given)


def _rename_outputs(graph: Any) -> None:
    names = {old.name: new for old, new in zip(graph.output, OUTPUTS, strict=True)}
    for node in graph.node:
        for edges in (node.input, node.output):
            edges[:] = [names.get(edge, edge) for edge in edges]
    for output in graph.output:
        output.name = names[output.name]
