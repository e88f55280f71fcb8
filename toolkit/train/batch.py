"""Batches on their way into a model."""

from __future__ import annotations

from typing import Any

import paddle


def to_tensors(batch: dict[str, Any]) -> dict[str, Any]:
    """The arrays of a batch, and the arrays in its lists, as tensors on the current device."""
    return {
        key: [paddle.to_tensor(item) for item in value] if isinstance(value, list) else paddle.to_tensor(value)
        for key, value in batch.items()
        if key != "image_ids"
    }
