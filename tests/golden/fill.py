"""The rule by which the golden figures were made: weights and "random" numbers that depend on names and shapes alone.

The figures in `figures/*.npz` hold only for weights made exactly this way.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Final predictors, kept small so that scores and boxes stay spread out.
SMALL = (
    "pred_cls",
    "pred_reg",
    "score_head",
    "solo_cate",
    "solo_kernel",
    "bbox_score",
    "bbox_delta",
    "rpn_rois",
    "bbox_head.layers.2",
)


def fill(name: str, shape: Sequence[int]) -> NDArray[np.float32] | None:
    """Value of the parameter or buffer `name` (its state_dict key).

    None for a key that keeps the value its layer was built with (the fixed DFL projection).
    """
    if name.endswith("proj_conv.weight"):
        return None
    rng = np.random.RandomState(zlib.crc32(name.encode()) & 0x7FFFFFFF)
    count = int(np.prod(shape)) if len(shape) else 1
    if name.endswith("_variance"):
        values = rng.uniform(0.5, 1.5, count)
    elif name.endswith("_mean"):
        values = rng.normal(0, 0.1, count)
    elif len(shape) == 1 and name.endswith(".weight"):
        values = rng.uniform(0.8, 1.2, count)
    elif name.endswith(".bias"):
        values = rng.normal(0, 0.05, count) - (3.0 if "score_head" in name or "pred_cls" in name else 0.0)
    else:
        fan_in = int(np.prod(shape[1:])) if len(shape) == 4 else (shape[0] if len(shape) == 2 else count)
        values = rng.normal(0, np.sqrt(1.0 / max(fan_in, 1)), count)
        if any(part in name for part in SMALL):
            values = values * 0.3
    return values.reshape(shape).astype("float32")


def state_dict(shapes: Mapping[str, Sequence[int]], golden: Any) -> dict[str, NDArray[Any]]:
    """All values for a model: `shapes` maps key to shape, `golden` is the opened npz, whose `bn/` entries stand in
    for the running statistics of the rule."""
    values = {key: value for key, shape in shapes.items() if (value := fill(key, shape)) is not None}
    values.update({key[3:]: golden[key] for key in golden.files if key.startswith("bn/")})
    return values


def sequence(shape: Sequence[int]) -> NDArray[np.float32]:
    """What stood in for `paddle.rand(shape)` while the training figures were made."""
    count = int(np.prod(shape)) if len(shape) else 1
    steps = (np.arange(count, dtype=np.float64) + 1) * 0.6180339887498949
    return np.mod(steps, 1.0).astype("float32").reshape(shape)


def digest(tensor: Any) -> dict[str, Any]:
    """How a tensor is stored: shape, mean, std, absmax and up to 256 evenly spaced flat samples."""
    flat = np.asarray(tensor, "float64").reshape(-1)
    size = flat.size
    index = np.unique(np.linspace(0, size - 1, min(size, 256)).astype(np.int64)) if size else np.zeros(0, int)
    return {
        "shape": np.array(np.shape(tensor)),
        "mean": flat.mean() if size else 0.0,
        "std": flat.std() if size else 0.0,
        "absmax": np.abs(flat).max() if size else 0.0,
        "sample": flat[index].astype("float32"),
    }
