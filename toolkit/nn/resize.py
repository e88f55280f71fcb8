"""Resizing of feature maps without an interpolate operator.

oneDNN under Paddle's new IR refuses every interpolate operator, and `scale_factor` cannot be converted to ONNX, so the
networks resize by copies and matrix products, which every backend runs.
"""

from __future__ import annotations

import paddle
from paddle import Tensor

from toolkit.nn.shape import Size, size_of


def upsample2x_nearest(x: Tensor) -> Tensor:
    """`[B, C, h, w]` -> `[B, C, 2h, 2w]`, every value repeated in a 2 x 2 square."""
    wide = paddle.stack([x, x], axis=4).flatten(3)
    return paddle.stack([wide, wide], axis=3).flatten(2, 3)


def resize_bilinear(x: Tensor, size: tuple[Size, Size]) -> Tensor:
    """`[B, C, h, w]` -> `[B, C, *size]`, bilinear with half-pixel centres and no anti-aliasing.

    Equal to `F.interpolate(x, size, mode="bilinear", align_corners=False)`, but for a target side of one pixel, which
    shows the centre (as in OpenCV) where Paddle takes the first pixel. `size` is height and width.
    """
    rows = _interpolation_matrix(size_of(x, 2), size[0])  # [H, h]
    columns = _interpolation_matrix(size_of(x, 3), size[1])  # [W, w]
    # Three dimensions: oneDNN takes a four-dimensional convolution output in the wrong memory layout and multiplies
    # noise.
    flat = paddle.matmul(rows, paddle.matmul(x.flatten(0, 1), columns, transpose_y=True))
    return flat.reshape([x.shape[0], size_of(x, 1), *size])


def _interpolation_matrix(source: Size, target: Size) -> Tensor:
    """`[target, source]`: row i holds the weights by which target pixel i sees the source pixels."""
    scale = _float(source) / _float(target)
    # A pixel beyond the outermost centres repeats the border.
    centre = ((_positions(target) + 0.5) * scale - 0.5).clip(min=0.0, max=_float(source) - 1.0)
    distance = (centre.unsqueeze(1) - _positions(source)).abs()
    return (1.0 - distance).clip(min=0.0)


def _float(size: Size) -> float | Tensor:
    return float(size) if isinstance(size, int) else size.reshape([]).astype("float32")


def _positions(count: Size) -> Tensor:
    if isinstance(count, int):
        return paddle.arange(count, dtype="float32")
    return paddle.arange(0, count.reshape([]), 1, dtype="int32").astype("float32")
