"""CSPResNet, the backbone of PP-YOLOE (Xu et al. 2022, arXiv:2203.16250), and the blocks its neck shares."""

from __future__ import annotations

from collections.abc import Sequence

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn


class ConvNorm(nn.Layer):
    """Convolution without bias, batch norm and, where `act`, Swish; odd kernels keep the size at stride 1."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, *, stride: int = 1, act: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2D(in_channels, out_channels, kernel, stride=stride, padding=kernel // 2, bias_attr=False)
        self.bn = nn.BatchNorm2D(out_channels)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x))
        return F.swish(x) if self.act else x


class RepConv(nn.Layer):
    """Swish over the sum of a 3 x 3 and a 1 x 1 convolution; `weighted`: the latter times a learnt `alpha`."""

    def __init__(self, channels: int, *, weighted: bool) -> None:
        super().__init__()
        self.conv1 = ConvNorm(channels, channels, 3, act=False)
        self.conv2 = ConvNorm(channels, channels, 1, act=False)
        one = nn.initializer.Constant(1.0)
        self.alpha = self.create_parameter([1], default_initializer=one) if weighted else None

    def forward(self, x: Tensor) -> Tensor:
        point = self.conv2(x)
        if self.alpha is not None:
            # The published weights were trained so: an alpha that is not positive counts as 1.
            point = point * paddle.where(self.alpha > 0, self.alpha, paddle.ones_like(self.alpha))
        return F.swish(self.conv1(x) + point)


class RepBlock(nn.Layer):
    """A 3 x 3 convolution and a `RepConv`; `residual` adds the input."""

    def __init__(self, channels: int, *, residual: bool) -> None:
        super().__init__()
        self.conv1 = ConvNorm(channels, channels, 3)
        self.conv2 = RepConv(channels, weighted=residual)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(self.conv1(x))
        return x + y if self.residual else y


class ChannelGate(nn.Layer):
    """Channels scaled by a hard sigmoid of their own means (effective squeeze and excitation, arXiv:1911.06667)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Conv2D(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * F.hardsigmoid(self.fc(x.mean([2, 3], keepdim=True)))


class CSPStage(nn.Layer):
    """Half the size: one half of the channels goes through residual blocks, the other past them."""

    def __init__(self, in_channels: int, out_channels: int, *, blocks: int) -> None:
        super().__init__()
        middle = (in_channels + out_channels) // 2
        self.conv_down = ConvNorm(in_channels, middle, 3, stride=2)
        self.conv1 = ConvNorm(middle, middle // 2, 1)
        self.conv2 = ConvNorm(middle, middle // 2, 1)
        self.blocks = nn.Sequential(*[RepBlock(middle // 2, residual=True) for _ in range(blocks)])
        self.attn = ChannelGate(middle // 2 * 2)
        self.conv3 = ConvNorm(middle // 2 * 2, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_down(x)
        return self.conv3(self.attn(paddle.concat([self.conv1(x), self.blocks(self.conv2(x))], axis=1)))


class CSPResNet(nn.Layer):
    """Picture `[B, 3, h, w]` -> features at strides 8, 16 and 32.

    Args:
        channels: of the stem (stride 2) and of the four stages (strides 4 to 32).
        blocks: residual blocks of each stage.
    """

    def __init__(self, *, channels: Sequence[int], blocks: Sequence[int]) -> None:
        super().__init__()
        stem = channels[0] // 2
        self.stem = nn.Sequential(
            ("conv1", ConvNorm(3, stem, 3, stride=2)),
            ("conv2", ConvNorm(stem, stem, 3)),
            ("conv3", ConvNorm(stem, channels[0], 3)),
        )
        self.stages = nn.LayerList(
            [CSPStage(channels[i], channels[i + 1], blocks=count) for i, count in enumerate(blocks)]
        )
        self.out_channels = tuple(channels[-3:])

    def forward(self, image: Tensor) -> list[Tensor]:
        features = [self.stem(image)]
        for stage in self.stages:
            features.append(stage(features[-1]))
        return features[-3:]
