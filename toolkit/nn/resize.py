"""Resizing of feature maps without an interpolate operator.

oneDNN under Paddle's new IR refuses every interpolate operator, and `scale_factor` cannot be converted to ONNX, so the
networks resize by copies and matrix products, which every backend runs.
"""

from __future__ import annotations

import paddle
from paddle import Tensor


def upsample2x_nearest(x: Tensor) -> Tensor:
    """`[B, C, h, w]` -> `[B, C, 2h, 2w]`, every value repeated in a 2 x 2 square."""
    _, channels, height, width = x.shape
    x = x.reshape([-1, channels, height, 1, width, 1])
    return x.expand([-1, channels, height, 2, width, 2]).reshape([-1, channels, 2 * height, 2 * width])


def resize_bilinear(x: Tensor, size: tuple[int | Tensor, int | Tensor]) -> Tensor:
    """`[B, C, h, w]` -> `[B, C, *size]`, bilinear with half-pixel centres and no anti-aliasing.

    Equal to `F.interpolate(x, size, mode="bilinear", align_corners=False)`, but for a target side of one pixel, which
    shows the centre (as in OpenCV) where Paddle takes the first pixel. `size` is height and width, Python ints or
    integer tensors of one element (a size known only when an exported graph runs).
    """
    batch, channels, height, width = x.shape
    rows = _interpolation_matrix(height, size[0])  # [H, h]
    columns = _interpolation_matrix(width, size[1])  # [W, w]
    # Three dimensions: oneDNN takes a four-dimensional convolution output in the wrong memory layout and multiplies
    # noise.
    x = paddle.matmul(rows, paddle.matmul(x.flatten(0, 1), columns, transpose_y=True))
    return x.reshape([batch, channels, *size])


def _interpolation_matrix(source: int, target: int | Tensor) -> Tensor:
    """`[target, source]`: row i holds the weights by which target pixel i sees the source pixels."""
    if isinstance(target, int):
        scale: float | Tensor = source / target
        index = paddle.arange(target, dtype="float32")
    else:
        target = target.reshape([])
        scale = source / target.astype("float32")
        index = paddle.arange(0, target, 1, dtype="int32").astype("float32")
    # A pixel beyond the outermost centres repeats the border.
    centre = ((index + 0.5) * scale - 0.5).clip(min=0.0, max=float(source - 1))
    distance = (centre.unsqueeze(1) - paddle.arange(source, dtype="float32")).abs()
    return (1.0 - distance).clip(min=0.0)
