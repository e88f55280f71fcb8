"""Random weights for models whose scores should be spread out, as those of trained models are."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

FIXED = ("alpha", "proj_conv.weight")
"""Of PP-YOLOE, the scales of its branches, which rest below 0, and the bins of its distances."""
SMALL = ("pred_cls", "pred_reg", "score_head", "solo_cate", "solo_kernel", "bbox_score", "bbox_delta")
"""Final predictors, kept small so that scores and boxes stay spread out."""


def random_weights(shapes: Mapping[str, Sequence[int]]) -> dict[str, NDArray[np.float32]]:
    """Values for a model whose state_dict has these keys and shapes, the same on any machine."""
    return {key: _values(key, shape) for key, shape in shapes.items() if not key.endswith(FIXED)}


def _values(name: str, shape: Sequence[int]) -> NDArray[np.float32]:
    rng = np.random.RandomState(zlib.crc32(name.encode()) & 0x7FFFFFFF)
    if name.endswith("_variance"):
        values = rng.uniform(0.5, 1.5, shape)
    elif name.endswith("_mean"):
        values = rng.normal(0, 0.1, shape)
    elif name.endswith(".bias"):
        values = rng.normal(0, 0.05, shape) - (3.0 if "score_head" in name or "pred_cls" in name else 0.0)
    elif len(shape) == 1:
        values = rng.uniform(0.8, 1.2, shape)
    else:
        inputs = shape[0] if len(shape) == 2 else np.prod(shape[1:])
        small = any(part in name for part in (*SMALL, "rpn_rois", "bbox_head.layers.2"))
        values = rng.normal(0, (0.3 if small else 1.0) / np.sqrt(inputs), shape)
    return values.astype(np.float32)
