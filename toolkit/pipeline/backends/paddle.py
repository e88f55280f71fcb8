"""Paddle Inference: the graph that PaddleX runs, masks at full size inside it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit import cores
from toolkit.data.detections import Detections
from toolkit.data.masks import Crop
from toolkit.data.preprocess import Prepared
from toolkit.errors import UserError
from toolkit.extras import install_line
from toolkit.pipeline.exported import Exported
from toolkit.quiet import captured
from toolkit.stages import stage


def load(exported: Exported, name: str, *, device: str, threads: int | None) -> PaddleInference:
    return PaddleInference(exported, device=device, onednn=name == "paddle_onednn", threads=threads)


class PaddleInference:
    """`inference.json` (or `.pdmodel`): image, im_shape, scale_factor -> bbox, bbox_num, mask.

    One picture at a time: PaddleX's own exports refuse a batch, and crash in oneDNN. One thread at a time: a predictor
    mixes the results of several.
    """

    shared = False

    def __init__(
        self, exported: Exported, *, device: str = "cpu", onednn: bool = False, threads: int | None = None
    ) -> None:
        self.name = "paddle_onednn" if onednn else "paddle"
        try:
            import_module("toolkit.device")  # Paddle's first import, without its remarks
            from paddle.inference import Config, create_predictor
        except ImportError:
            raise UserError(f"engine {self.name}: Paddle is not installed; {install_line('paddle')}") from None
        config = Config(str(exported.program), str(exported.parameters))
        _use_device(config, device)
        if device == "cpu":
            if onednn:
                config.enable_mkldnn()
                config.set_mkldnn_cache_capacity(10)  # for pictures of many sizes
            else:
                config.disable_mkldnn()
            config.set_cpu_math_library_num_threads(threads or cores())
        config.enable_new_ir(True)
        config.enable_new_executor()
        config.enable_memory_optim()
        config.disable_glog_info()
        try:
            self._predictor = create_predictor(config)
        except Exception as error:
            reason = str(error).strip().splitlines()[-1]
            raise UserError(f"{exported.program}: not loadable: {reason:.200}") from None

        # oneDNN prints what it looks into when it runs for the first time.
        self._around_run: AbstractContextManager[Any] = captured()

    def __call__(self, batch: Sequence[Prepared], *, threshold: float) -> list[Detections]:
        return [self._one(picture, threshold) for picture in batch]

    def _one(self, picture: Prepared, threshold: float) -> Detections:
        with stage("network"):
            outputs = self._run(picture)
        with stage("masks"):
            return _detections(outputs, picture.size, threshold)

    def _run(self, picture: Prepared) -> list[NDArray[Any]]:
        feed = {
            "image": picture.image[None],
            "im_shape": np.array([picture.im_shape], np.float32),
            "scale_factor": np.array([picture.scale_factor], np.float32),
        }
        for name in self._predictor.get_input_names():
            self._predictor.get_input_handle(name).copy_from_cpu(feed[name])
        with self._around_run:
            self._predictor.run()
        self._around_run = nullcontext()
        return [self._predictor.get_output_handle(name).copy_to_cpu() for name in self._predictor.get_output_names()]


def _use_device(config: Any, device: str) -> None:
    from toolkit.device import available_devices

    # Accelerators: not run here.
    kind, _, number = device.partition(":")
    index = int(number or 0)
    if kind == "cpu":
        return
    # Paddle itself would go on with the CPU.
    if f"{kind}:{index}" not in (found := available_devices()):
        raise UserError(f"device {device}: Paddle does not see it here; possible are {', '.join(found)}")
    if kind == "gpu":
        config.enable_use_gpu(256, index)
    elif kind == "xpu":
        config.enable_xpu()
        config.set_xpu_device_id(index)
    else:
        config.enable_custom_device(kind, index)


def _detections(outputs: list[NDArray[Any]], size: tuple[int, int], threshold: float) -> Detections:
    if len(outputs) == 3:
        rows, _, masks = outputs
        rows = rows.reshape(-1, 6)
        labels, scores, boxes = rows[:, 0].astype(np.int64), rows[:, 1], rows[:, 2:]
    else:
        # SOLOv2 has no boxes: (number, label, score, mask).
        _, labels, scores, masks = outputs
        labels, scores = labels.reshape(-1).astype(np.int64), scores.reshape(-1)
        boxes = None
    kept = np.flatnonzero((scores >= threshold) & (labels >= 0))
    kept = kept[np.argsort(-scores[kept], kind="stable")]
    crops = [_crop(masks[row], size) for row in kept]
    if boxes is None:
        edges = [(c.x, c.y, c.x + c.mask.shape[1], c.y + c.mask.shape[0]) for c in crops]
        found = np.array(edges, np.float32).reshape(-1, 4)
    else:
        height, width = size
        found = boxes[kept].clip(0, np.array([width, height, width, height], np.float32)).astype(np.float32)
    return Detections(found, scores[kept].astype(np.float32), labels[kept], crops, size)


def _crop(mask: NDArray[Any], size: tuple[int, int]) -> Crop:
    """The set pixels of a full-size mask; PaddleDetection's exports may be a row or a column short of the picture."""
    inside = mask[: size[0], : size[1]] > 0
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if len(rows) == 0:
        return Crop(np.zeros((0, 0), np.uint8), 0, 0)
    top, left = int(rows[0]), int(columns[0])
    return Crop(inside[top : rows[-1] + 1, left : columns[-1] + 1].astype(np.uint8), left, top)
