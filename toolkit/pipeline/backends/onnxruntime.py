"""ONNX Runtime on the CPU: the fast graph, masks pasted outside it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from toolkit.data.detections import Detections, place
from toolkit.data.preprocess import Prepared
from toolkit.errors import UserError
from toolkit.pipeline.backends import cpu_count
from toolkit.pipeline.exported import Exported


class OnnxRuntime:
    """`inference.onnx`: image `[B, 3, h, w]` -> boxes, scores, labels, mask logits."""

    name = "onnxruntime"

    def __init__(self, exported: Exported) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise UserError("engine onnxruntime: not installed; `pip install onnxruntime`") from None
        if exported.onnx is None:
            raise UserError(f"{exported.folder}: has no inference.onnx; export it again, or use the engine paddle")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = cpu_count()
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                str(exported.onnx), sess_options=options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise UserError(f"{exported.onnx}: not loadable: {' '.join(str(error).split())[:200]}") from None
        self._exported = exported

    def __call__(self, batch: Sequence[Prepared], *, threshold: float) -> list[Detections]:
        (feed,) = self._session.get_inputs()
        shapes = {picture.image.shape for picture in batch}
        step = len(batch) if len(shapes) == 1 and not isinstance(feed.shape[0], int) else 1
        results: list[Detections] = []
        for start in range(0, len(batch), step):
            pictures = batch[start : start + step]
            image = np.stack([picture.image for picture in pictures])
            outputs = self._session.run(None, {feed.name: image})
            results += [
                place(
                    *(output[row] for output in outputs),
                    size=picture.size,
                    network_size=(image.shape[2], image.shape[3]),
                    scale=picture.scale_factor,
                    mask_frame=self._exported.mask_frame,
                    mask_clip=self._exported.mask_clip,
                    threshold=threshold,
                )
                for row, picture in enumerate(pictures)
            ]
        return results
