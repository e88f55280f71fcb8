"""The engines by name: what each needs, and how it is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from toolkit.data.detections import Detections
from toolkit.data.preprocess import Prepared
from toolkit.errors import UserError
from toolkit.pipeline.exported import Exported


class Backend(Protocol):
    """A loaded model. To be called by one thread at a time, unless it is `shared`."""

    name: str
    shared: bool
    """Whether several threads may call it together."""

    def __call__(self, batch: Sequence[Prepared], *, threshold: float) -> list[Detections]:
        """The instances of each picture with at least that score, best first."""
        ...


@dataclass(frozen=True)
class Engine:
    """A way to run an exported model."""

    module: str
    """The file in this folder, whose `load` makes a Backend."""
    requires: str
    """The module without which it cannot run; `package` is what pip installs it from."""
    package: str
    precision: str = "f32"
    devices: tuple[str, ...] = ("cpu",)

    def graph(self, exported: Exported) -> Path | None:
        """The file that it runs, if it is there."""
        if self.module == "paddle":
            return exported.program if exported.parameters else None
        return exported.int8 if self.precision == "int8" else exported.onnx

    def lacks(self, exported: Exported, device: str) -> str | None:
        """Why it cannot run the model on `device` here, or None."""
        if device.partition(":")[0] not in self.devices:
            return f"does not run on {device}, but on {', '.join(self.devices)}"
        if self.graph(exported) is None:
            if self.module == "paddle":
                return f"{exported.folder} has no inference.json (or .pdmodel) with inference.pdiparams"
            file = "inference.int8.onnx; export it again with --int8"
            file = file if self.precision == "int8" else "inference.onnx; export it again, or use the engine paddle"
            return f"{exported.folder} has no {file}"
        if find_spec(self.requires) is None:
            return f"not installed; `pip install {self.package}`"
        return None


_ONNXRUNTIME = ("onnxruntime", "onnxruntime", "onnxruntime")
_ONNXRUNTIME_GPU = ("onnxruntime", "onnxruntime", "onnxruntime-gpu")
_OPENVINO = ("openvino", "openvino", "openvino")
_PADDLE = ("paddle", "paddle", "paddlepaddle")

ENGINES = {
    "onnxruntime": Engine(*_ONNXRUNTIME),
    "onnxruntime_int8": Engine(*_ONNXRUNTIME, precision="int8"),
    "openvino": Engine(*_OPENVINO),
    "openvino_bf16": Engine(*_OPENVINO, precision="bf16"),
    "openvino_int8": Engine(*_OPENVINO, precision="int8"),
    "paddle": Engine(*_PADDLE, devices=("cpu", "gpu", "npu", "xpu", "mlu")),
    "paddle_onednn": Engine(*_PADDLE),
    # Not run by the project's tests, which have no GPU.
    "onnxruntime_cuda": Engine(*_ONNXRUNTIME_GPU, devices=("gpu",)),
    "onnxruntime_tensorrt": Engine(*_ONNXRUNTIME_GPU, devices=("gpu",)),
}
"""In the order of preference where nothing is known of their speed."""


def load_engine(exported: Exported, name: str, *, device: str = "cpu", threads: int | None = None) -> Backend:
    """Load the model's graph into the engine `name`, on `device`, `cpu` or one such as `gpu:0`.

    Args:
        threads: on the CPU; by default as many as there are cores.

    Raises UserError if the engine is unknown, or the folder or the environment lacks what it needs.
    """
    if name not in ENGINES:
        raise UserError(f"engine {name}: unknown; possible are {', '.join(ENGINES)}")
    if reason := ENGINES[name].lacks(exported, device):
        raise UserError(f"engine {name}: {reason}")
    module = import_module(f"toolkit.pipeline.backends.{ENGINES[name].module}")
    backend: Backend = module.load(exported, name, device=device, threads=threads)
    return backend
