"""The fast graph with 8-bit layers, by quantisation after training."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.pipeline.exported import Exported
from toolkit.quiet import captured

CHANNELS = 16
"""Layers with fewer outputs (the proposals' scores and boxes) stay as they are."""


def save_int8(exported: Exported, pictures: Iterable[NDArray[np.uint8]]) -> Path:
    """Write `inference.int8.onnx` beside `inference.onnx`, its ranges measured on `pictures` (uint8 `[H, W, 3]`, RGB).

    Weights and inputs of convolutions and linear layers become 8-bit numbers, the weights' scale being each channel's
    own. In f32 stay the last layers, which say classes and boxes, and all else: attention, sampling, selection, masks.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    path = exported.folder / "inference.int8.onnx"
    with TemporaryDirectory() as scratch, captured():
        folded = Path(scratch) / "folded.onnx"
        quant_pre_process(str(exported.onnx), str(folded), skip_symbolic_shape=True)
        graph = onnx.load(str(folded)).graph
        inputs = {given.name for given in graph.input}

        class Reader(CalibrationDataReader):
            def __init__(self) -> None:
                self._feeds = _feeds(exported, pictures, inputs)

            def get_next(self) -> dict[str, NDArray[np.float32]] | None:
                return next(self._feeds, None)

        logging.disable(logging.WARNING)  # It advises what was done just now.
        try:
            quantize_static(
                str(folded),
                str(path),
                Reader(),
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                op_types_to_quantize=["Conv", "MatMul"],
                nodes_to_exclude=_kept(graph),
            )
        finally:
            logging.disable(logging.NOTSET)
    return path


def _feeds(
    exported: Exported, pictures: Iterable[NDArray[np.uint8]], inputs: set[str]
) -> Iterator[dict[str, NDArray[np.float32]]]:
    for rgb in pictures:
        prepared = exported.preprocess(rgb)
        feed = {
            "image": prepared.image[None],
            "im_shape": np.array([prepared.im_shape], np.float32),
            "threshold": np.zeros(1, np.float32),
        }
        yield {name: value for name, value in feed.items() if name in inputs}


def _kept(graph: Any) -> list[str]:
    """The convolutions and products that stay as they are: those that say something, since no other layer goes on with
    what they make of the picture; those with few outputs; and products that are no layers, such as resizing."""
    shapes = {weights.name: weights.dims for weights in graph.initializer}
    added = {
        edge for node in graph.node if node.op_type == "Add" and set(node.input) & set(shapes) for edge in node.input
    }
    leads_on: set[str] = set()  # Edges from which a layer is reached.
    kept = []
    for node in reversed(graph.node):
        followed = any(output in leads_on for output in node.output)
        weights = shapes.get(node.input[1], []) if len(node.input) > 1 else []
        linear = node.op_type == "MatMul" and len(weights) == 2 and node.output[0] in added
        if node.op_type == "Conv" or linear:
            outputs = weights[1] if linear else weights[0]
            if not followed or outputs < CHANNELS:
                kept.append(node.name)
            leads_on.update(node.input)
        elif node.op_type in ("GridSample", "RoiAlign"):
            leads_on.update(node.input[:1])  # Not what says where.
        else:
            if node.op_type == "MatMul":
                kept.append(node.name)
            if followed and node.op_type != "TopK":  # Which ones is no matter of numbers.
                leads_on.update(node.input)
    return kept
