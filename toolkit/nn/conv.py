"""Convolution with its batch norm and activation."""

from __future__ import annotations

from collections.abc import Callable

from paddle import Tensor, nn


class ConvNorm(nn.Layer):
    """Convolution without bias, batch norm, activation: `[B, in, h, w]` -> `[B, out, h / stride, w / stride]`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int | None = None,
        groups: int = 1,
        activation: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2D(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=(kernel_size - 1) // 2 if padding is None else padding,
            groups=groups,
            weight_attr=nn.initializer.KaimingUniform(negative_slope=5**0.5, nonlinearity="leaky_relu"),
            bias_attr=False,
        )
        self.bn = nn.BatchNorm2D(out_channels)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x))
        return x if self.activation is None else self.activation(x)
