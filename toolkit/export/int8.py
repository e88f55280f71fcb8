"""The fast graph with 8-bit convolutions, by quantisation after training."""

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
"""Convolutions with fewer outputs (the proposals' scores and boxes) stay as they are."""


def save_int8(exported: Exported, pictures: Iterable[NDArray[np.uint8]]) -> Path:
    """Write `inference.int8.onnx` beside `inference.onnx`, its ranges measured on `pictures` (uint8 `[H, W, 3]`, RGB).

    Weights and inputs of convolutions become 8-bit numbers, the weights' scale being each channel's own. In f32 stay
    the last convolutions, which say classes and boxes, and all else: attention, sampling, selection, masks.
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
                op_types_to_quantize=["Conv"],
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
    """The convolutions that say something, since no other and no sampling follows, and those with few outputs."""
    shapes = {weights.name: weights.dims for weights in graph.initializer}
    leads_on: set[str] = set()  # Edges from which a convolution is reached.
    kept = []
    for node in reversed(graph.node):
        followed = any(output in leads_on for output in node.output)
        if node.op_type == "Conv" and (not followed or shapes[node.input[1]][0] < CHANNELS):
            kept.append(node.name)
        if followed or node.op_type in ("Conv", "GridSample"):
            leads_on.update(node.input)
    return kept
