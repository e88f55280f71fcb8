"""What runs an exported model: one file per engine."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Protocol

from toolkit.data.detections import Detections
from toolkit.data.preprocess import Prepared
from toolkit.errors import UserError
from toolkit.pipeline.exported import Exported

ENGINES = ("onnxruntime", "paddle")


class Backend(Protocol):
    """A loaded model. To be called by one thread at a time, unless it is `shared`: a Paddle predictor mixes results."""

    name: str
    shared: bool
    """Whether several threads may call it together, each of which then brings the model's threads to work."""

    def __call__(self, batch: Sequence[Prepared], *, threshold: float) -> list[Detections]:
        """The instances of each picture with at least that score, best first."""
        ...


def load_backend(
    exported: Exported, *, engine: str | None = None, device: str | None = None, threads: int | None = None
) -> Backend:
    """Load the model's graph.

    Args:
        engine: `onnxruntime`, `paddle`, or None: ONNX Runtime on the CPU where it and `inference.onnx` are there, else
            Paddle Inference.
        device: `cpu` (also None and `auto`), or an accelerator such as `gpu:0`, which Paddle runs.
        threads: on the CPU; by default one for each core.

    Raises UserError if the engine is unknown, or the folder or the environment lacks what it needs.
    """
    on_cpu = device in (None, "auto", "cpu")
    if engine is None:
        engine = "onnxruntime" if on_cpu and exported.onnx and find_spec("onnxruntime") else "paddle"
    if engine == "onnxruntime":
        if not on_cpu:
            raise UserError(f"device {device}: ONNX Runtime runs on the CPU here; accelerators need the engine paddle")
        from toolkit.pipeline.backends.onnxruntime import OnnxRuntime

        return OnnxRuntime(exported, threads=threads)
    if engine in ("paddle", "paddle_static"):
        from toolkit.pipeline.backends.paddle import PaddleInference

        return PaddleInference(exported, device="cpu" if on_cpu else str(device), threads=threads)
    raise UserError(f"engine {engine}: unknown; possible are onnxruntime and paddle")
