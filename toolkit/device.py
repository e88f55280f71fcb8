"""Where to compute: `auto`, `cpu`, `gpu:0`, `npu:0`, `xpu:0`, `mlu:0`."""

from __future__ import annotations

import contextlib
import ctypes
import io
import re
import sys

from toolkit.errors import UserError

# Told to use more than one thread, Paddle warns of data parallelism at its first import, which is therefore here.
with contextlib.redirect_stderr(io.StringIO()):
    import paddle

ACCELERATORS = ("gpu", "npu", "xpu", "mlu")

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
"""Of `mallopt`, from glibc's malloc.h."""


def set_device(device: str) -> str:
    """Make `device` Paddle's current one and return its full name.

    `auto` takes the first accelerator that this build of Paddle sees, else the CPU. Accelerators: not run here.

    Raises UserError for a name or an index that does not exist, and says which do.
    """
    found = available_devices()
    if device == "auto":
        device = found[-1] if len(found) == 1 else found[1]
    match = re.fullmatch(r"(cpu|gpu|npu|xpu|mlu)(?::(\d+))?", device)
    if match is None:
        raise UserError(f"--device {device}: unknown; possible here: auto, {', '.join(found)}")
    kind, index = match.groups()
    name = "cpu" if kind == "cpu" else f"{kind}:{index or 0}"
    if name not in found:
        raise UserError(f"--device {device}: not on this machine; possible here: auto, {', '.join(found)}")
    if name == "cpu":
        _keep_memory()
    paddle.set_device(name)
    return name


def available_devices() -> list[str]:
    """`cpu`, then the accelerators that this build of Paddle sees."""
    custom = {kind: paddle.device.get_available_custom_device() for kind in ("npu", "mlu")}
    found = ["cpu"]
    if paddle.is_compiled_with_cuda():
        found += [f"gpu:{i}" for i in range(paddle.device.cuda.device_count())]
    if paddle.is_compiled_with_xpu():
        found += [f"xpu:{i}" for i in range(paddle.device.xpu.device_count())]
    for kind, names in custom.items():
        found += [f"{kind}:{name.split(':')[-1]}" for name in names if name.split(":")[0] == kind]
    return found


def _keep_memory() -> None:
    """Keep what tensors free for the next ones, where the C library is glibc.

    It returns large blocks to the system at once, and their pages are made and zeroed again for every operator, which
    can take longer than the operator.
    """
    with contextlib.suppress(OSError, AttributeError):
        if sys.platform == "linux":
            adjust = ctypes.CDLL("libc.so.6").mallopt
            for option, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 2**26)):
                adjust(option, value)
