"""Which extra of the package brings a module that is not installed."""

from __future__ import annotations

EXTRAS = {
    "paddle": "train",
    "albumentations": "train",
    "visualdl": "train",
    "onnx": "train",
    "paddle2onnx": "train",
    "fastapi": "serve",
    "uvicorn": "serve",
    "httpx": "serve",
    "prometheus_client": "serve",
    "openvino": "openvino",
    "pypdfium2": "pdf",
}
"""By the module's name."""


def install_line(module: str) -> str:
    """The command that installs `module`, one of `EXTRAS`."""
    return f'pip install "seg-tune[{EXTRAS[module]}]"'


def missing_module(error: ImportError) -> str | None:
    """One line for people about a module that could not be imported; None for one that no extra brings."""
    module = (error.name or "").partition(".")[0]
    if not isinstance(error, ModuleNotFoundError) or module not in EXTRAS:
        return None
    line = f"this needs {module}, which is not installed; {install_line(module)}"
    if EXTRAS[module] == "train":
        line += ' (with a Paddle of your own, for a GPU for example: "seg-tune[train-gpu]")'
    return line
