"""Names of devices, without asking Paddle which are there."""

from __future__ import annotations

from toolkit.errors import UserError


def split_devices(device: str) -> list[str]:
    """One name for each worker: `cpu:2` is two of them, `gpu:0,2` one for each device, all others are one.

    Raises UserError for a list that is not one.
    """
    kind, _, rest = device.partition(":")
    if kind == "cpu" and rest.isdecimal() and int(rest) > 0:
        return ["cpu"] * int(rest)
    if "," not in rest:
        return [device]
    indices = rest.split(",")
    if not all(index.isdecimal() for index in indices) or len(set(indices)) < len(indices):
        raise UserError(f"device {device}: write several as in gpu:0,1,2,3")
    return [f"{kind}:{index}" for index in indices]
