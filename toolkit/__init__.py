"""seg-tune: fine-tune instance segmentation models on Paddle and put them into service.

data -> models -> weights -> evaluate -> train -> pipeline -> serve -> export

A room imports only from rooms to its left (and recipe, zoo, run, device, errors); `pipeline` needs neither models nor
training. See docs/architecture.md.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toolkit.models import build_model as build_model
    from toolkit.pipeline.model import create_model as create_model
    from toolkit.pipeline.predictor import create_pipeline as create_pipeline

__version__ = "0.1.0"


def cores() -> int:
    """How many processor cores this process may use; in a container fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# What has to be said before Paddle is imported.
# It sets one thread unless told otherwise.
os.environ.setdefault("OMP_NUM_THREADS", str(cores()))

# ONNX Runtime reports its use over the network otherwise, and complains where the home folder is read-only.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def _fast_path() -> str | None:
    """The instructions that MKL should use on AMD's processors: 7 for AVX-512, 5 for AVX2.

    The MKL that Paddle bundles knows Intel's alone and multiplies matrices two to four times slower elsewhere.
    """
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123
            text = file.read(4096)
    except OSError:
        return None
    if "AuthenticAMD" not in text:
        return None
    if all(f"avx512{part}" in text for part in ("f", "bw", "dq", "vl")):
        return "7"
    return "5" if "avx2" in text else None


if _instructions := _fast_path():
    os.environ.setdefault("MKL_DEBUG_CPU_TYPE", _instructions)


def __getattr__(name: str) -> Any:
    # Loaded when used: `seg-tune --help` needs neither Paddle nor OpenCV.
    if name == "create_pipeline":
        from toolkit.pipeline.predictor import create_pipeline

        return create_pipeline
    if name == "create_model":
        from toolkit.pipeline.model import create_model

        return create_model
    if name == "build_model":
        from toolkit.models import build_model

        return build_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
