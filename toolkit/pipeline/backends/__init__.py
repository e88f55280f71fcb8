"""What runs an exported model: one file per engine."""

from __future__ import annotations

import re

from toolkit.errors import UserError
from toolkit.pipeline.backends.choose import choose_engine, warn_of_difference
from toolkit.pipeline.backends.engines import ENGINES, Backend, load_engine
from toolkit.pipeline.config import HpiConfig
from toolkit.pipeline.exported import Exported

__all__ = ["ENGINES", "Backend", "load_backend"]

_ALIASES = {"paddle_static": "paddle"}
"""PaddleX's name for it."""


def load_backend(
    exported: Exported,
    *,
    engine: str | None = None,
    device: str | None = None,
    threads: int | None = None,
    use_hpip: bool = False,
    hpi_config: HpiConfig | None = None,
) -> Backend:
    """Load the model's graph.

    Args:
        engine: one of `ENGINES`, whatever its certificate says; `auto` or None chooses the fastest one here that finds
            what the trained model finds.
        device: `cpu` (also None and `auto`), or an accelerator such as `gpu:0`, where Paddle runs unless another engine
            is asked for.
        threads: on the CPU; by default one for each core.
        use_hpip: choose among the engines of lower precision (bf16, int8) too, or take the one that `hpi_config` names.

    Raises UserError if the engine or the device is unknown, if the folder or the environment lacks what it needs, or
    if there is none that agrees with the trained model.
    """
    device = "cpu" if device is None or device == "auto" else device
    if not re.fullmatch(r"cpu|(gpu|npu|xpu|mlu)(:\d+)?", device):
        raise UserError(f"device {device}: unknown; possible are cpu, gpu:0, npu:0, xpu:0, mlu:0")
    hpi = hpi_config if use_hpip else None
    if hpi is not None:
        threads = threads or hpi.threads
        engine = engine or hpi.engine(device)
    if engine in (None, "auto"):
        name = choose_engine(exported, device=device, lower_precision=use_hpip, threads=threads)
        return load_engine(exported, name, device=device, threads=threads)
    backend = load_engine(exported, _ALIASES.get(engine, engine), device=device, threads=threads)
    if device == "cpu":
        warn_of_difference(exported, backend)
    return backend
