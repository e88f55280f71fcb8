"""Tensors of mixed precision and arrays of NumPy, which has no bfloat16."""

from __future__ import annotations

from typing import Any

import paddle
from numpy.typing import NDArray
from paddle import Tensor

LOW = (paddle.float16, paddle.bfloat16)


def to_numpy(tensor: Tensor) -> NDArray[Any]:
    """A copy on the host; of float16 and bfloat16 as float32, which holds them exactly."""
    array: NDArray[Any] = (tensor.astype("float32") if tensor.dtype in LOW else tensor).numpy()
    return array


def assign(tensor: Tensor, value: NDArray[Any]) -> None:
    """Put `value` into `tensor`, rounded where that has fewer bits."""
    tensor.set_value(paddle.to_tensor(value).astype(tensor.dtype) if tensor.dtype in LOW else value)
