"""ONNX Runtime on the CPU: the fast graph, masks pasted outside it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from toolkit import cores
from toolkit.data.detections import Detections, Floats, detect
from toolkit.data.preprocess import Prepared
from toolkit.errors import UserError
from toolkit.pipeline.exported import Exported


class OnnxRuntime:
    """`inference.onnx`: image `[B, 3, h, w]`, and im_shape `[B, 2]` if it asks for it -> boxes, scores, labels, mask
    logits."""

    name = "onnxruntime"
    shared = True

    def __init__(self, exported: Exported, *, threads: int | None = None) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise UserError("engine onnxruntime: not installed; `pip install onnxruntime`") from None
        if exported.onnx is None:
            raise UserError(f"{exported.folder}: has no inference.onnx; export it again, or use the engine paddle")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or cores()
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                str(exported.onnx), sess_options=options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise UserError(f"{exported.onnx}: not loadable: {' '.join(str(error).split())[:200]}") from None
        self._exported = exported

    def __call__(self, batch: Sequence[Prepared], *, threshold: float) -> list[Detections]:
        most = self._session.get_inputs()[0].shape[0]
        return detect(
            self._run,
            batch,
            mask_frame=self._exported.mask_frame,
            mask_clip=self._exported.mask_clip,
            threshold=threshold,
            at_once=most if isinstance(most, int) else None,
        )

    def _run(self, image: Floats, im_shape: Floats) -> list[NDArray[np.generic]]:
        feed = {"image": image, "im_shape": im_shape}
        outputs: list[NDArray[np.generic]] = self._session.run(
            None, {given.name: feed[given.name] for given in self._session.get_inputs()}
        )
        return outputs
