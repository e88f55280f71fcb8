"""The rule by which the golden figures were made: weights and "random" numbers that depend on names and shapes alone.

The figures in `figures/*.npz` hold only for weights made exactly this way.

A deep network of random weights with batch norm and ReLU is chaotic: each layer cuts off half of its input and the
next norm takes the mean away, so that a rounding error grows by a fifth a layer. Here every norm in front of an
activation has a bias of 2 to 3, at which ReLU cuts off about 1 % and the network is nearly linear, and every row of
weights sums to 0 over the input channels, so that these constants do not pile up. All weights stay random, and none is
small beside the others. Draws are uniform ones of NumPy's RandomState, whose bits are the same everywhere.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Final predictors, kept small so that scores and boxes stay spread out; factor.
SMALL = {
    "pred_cls": 0.3,
    "pred_reg": 0.3,
    "score_head": 0.5,
    "solo_cate": 1.0,
    "solo_kernel": 0.3,
    "bbox_score": 0.5,
    "bbox_delta": 0.3,
    "rpn_rois_score": 0.5,
    "rpn_rois_delta": 0.3,
    "bbox_head.layers.2": 0.3,
    "sampling_offsets": 0.1,
}
# Keys under which the reference lists a layer a second time.
TWICE = (
    ("solov2_head.bbox_head.solo_", "solov2_head.solo_"),
    ("mask_head.mask_feat_head.conv_pred.0.", "mask_head.conv_pred."),
)


def fill(
    name: str, shape: Sequence[int], seed: int = 0, shift: float = 2.5, *, norm: bool = False
) -> NDArray[np.float32] | None:
    """Value of the parameter or buffer `name` (its state_dict key) of `shape`, float32.

    None for a key that keeps the value its layer was built with (the fixed DFL projection).

    Args:
        seed, shift: `rule/seed` and `rule/shift` of the model's figures.
        norm: whether `name` belongs to a batch or group norm.
    """
    if name.endswith("proj_conv.weight"):
        return None
    for long, short in TWICE:
        name = name.replace(long, short)
    rng = np.random.RandomState((zlib.crc32(name.encode()) + 7919 * seed) & 0x7FFFFFFF)
    shape = tuple(int(n) for n in shape)
    u = rng.uniform(-1, 1, shape)
    if name.endswith("_variance"):
        a = 1 + 0.5 * u
    elif name.endswith("_mean"):
        a = 0.2 * u
    elif name.endswith("bias"):
        if norm:
            a = shift * (1 + 0.2 * u)
            if "branch2c" in name:
                a = 0.12 * a
        elif "enc_mask_output" in name:  # masks of Mask-RT-DETR from empty to full
            a = 1.5 * u
        elif "sampling_offsets" in name:
            a = 3 * u
        elif "score_head" in name or "pred_cls" in name or "solo_cate" in name:
            a = -2 + 0.1 * u
        else:
            a = 0.1 * u
    elif len(shape) <= 1:
        a = 1 + 0.2 * u
        if "branch2c" in name:  # the end of a residual branch
            a = 0.3 * a
    elif "class_embed" in name:
        a = 1.7 * u
    else:
        if len(shape) == 2 or "conv5_mask" in name or "upsample.weight" in name:
            inputs, axis = shape[0], 0
        else:
            inputs, axis = int(np.prod(shape[1:])), 1
        if shape[axis] >= 16:
            u = u - u.mean(axis, keepdims=True)
        a = u * np.sqrt(3 / inputs)
        for part, factor in SMALL.items():
            if part in name:
                a = a * factor
    return np.asarray(a.reshape(shape), np.float32)


def is_norm(name: str, keys: Collection[str]) -> bool:
    """Whether the layer of `name` is a batch or a group norm, told from the keys of the model."""
    layer = name.rpartition(".")[0]
    return f"{layer}._mean" in keys or layer.rpartition(".")[2] == "norm"


def made_up(shapes: Mapping[str, Sequence[int]], *, seed: int = 0, shift: float = 2.5) -> dict[str, NDArray[Any]]:
    """Values by the rule for a model whose state_dict has these keys and shapes."""
    values = {key: fill(key, shape, seed, shift, norm=is_norm(key, shapes)) for key, shape in shapes.items()}
    return {key: value for key, value in values.items() if value is not None}


def state_dict(shapes: Mapping[str, Sequence[int]], golden: Any) -> dict[str, NDArray[Any]]:
    """The values that the figures were made with: `golden` is the opened npz, whose `bn/` entries (float16) take the
    place of the running statistics of the rule."""
    values = made_up(shapes, seed=int(golden["rule/seed"]), shift=float(golden["rule/shift"]))
    values.update({key[3:]: golden[key].astype("float32") for key in golden.files if key.startswith("bn/")})
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
