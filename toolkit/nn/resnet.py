"""ResNet (He et al. 2016), its "vd" variant (He et al. 2019, arXiv:1812.01187) and ResNeXt (Xie et al. 2017).

The norms are usually frozen: they keep the statistics of the official weights and are no more than a factor and an
offset for each channel.
"""

from __future__ import annotations

from collections.abc import Sequence

import paddle.nn.functional as F
from paddle import Tensor, nn

BLOCKS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
"""Depth -> blocks of the stages res2 to res5. Up to 18, blocks have no bottleneck."""


class ResNet(nn.Layer):
    """`[B, 3, h, w]` -> a feature map of each stage that is asked for, res2 with stride 4 to res5 with stride 32.

    Args:
        depth: a key of `BLOCKS`.
        vd: three small convolutions instead of the large first one, and pooling in shortcuts.
        groups, group_width: of the 3 x 3 convolutions; 64 groups of 4 channels (in res2) make a ResNeXt 64x4d.
        width: channels of the stem; the stages have 1, 2, 4, 8 times as many (4, 8, 16, 32 with bottlenecks).
        stages: stages whose maps are returned; those after the last are not built.
        freeze: norms apply the running statistics they were loaded with, and neither they nor the stem and res2 train.
    """

    def __init__(
        self,
        *,
        depth: int = 50,
        vd: bool = False,
        groups: int = 1,
        group_width: int = 64,
        width: int = 64,
        stages: Sequence[int] = (2, 3, 4, 5),
        freeze: bool = True,
    ) -> None:
        super().__init__()
        if vd:
            half = width // 2
            stem = [
                ("conv1_1", ConvNorm(3, half, 3, stride=2, freeze=freeze)),
                ("conv1_2", ConvNorm(half, half, 3, freeze=freeze)),
                ("conv1_3", ConvNorm(half, width, 3, freeze=freeze)),
            ]
        else:
            stem = [("conv1" if groups == 1 else "res_conv1", ConvNorm(3, width, 7, stride=2, freeze=freeze))]
        self.conv1 = nn.Sequential(*stem)
        self.stages = tuple(stages)
        self.out_channels: list[int] = []
        channels = width
        for number in range(2, max(stages) + 1):
            stage = Stage(
                number=number,
                in_channels=channels,
                channels=width << (number - 2),
                blocks=BLOCKS[depth][number - 2],
                bottleneck=depth > 18,
                vd=vd,
                groups=groups,
                group_width=group_width,
                freeze=freeze,
            )
            self.add_sublayer(f"res{number}", stage)
            channels = stage.out_channels
            if number in stages:
                self.out_channels.append(channels)
        if freeze:
            for parameter in [*self.conv1.parameters(), *self.res2.parameters()]:
                parameter.stop_gradient = True

    def forward(self, image: Tensor) -> list[Tensor]:
        x = F.max_pool2d(self.conv1(image), 3, stride=2, padding=1)
        maps = []
        for number in range(2, max(self.stages) + 1):
            x = getattr(self, f"res{number}")(x)
            if number in self.stages:
                maps.append(x)
        return maps


class Stage(nn.Sequential):
    """Blocks at one resolution; the first halves it, but in res2."""

    def __init__(
        self,
        *,
        number: int,
        in_channels: int,
        channels: int,
        blocks: int,
        bottleneck: bool = True,
        vd: bool = False,
        groups: int = 1,
        group_width: int = 64,
        freeze: bool,
    ) -> None:
        layers: list[tuple[str, nn.Layer]] = []
        for i in range(blocks):
            stride = 2 if i == 0 and number > 2 else 1
            block: nn.Layer
            if bottleneck:
                block = Bottleneck(
                    in_channels,
                    channels,
                    inner=channels * group_width * groups // 64,
                    stride=stride,
                    first=i == 0,
                    vd=vd,
                    groups=groups,
                    freeze=freeze,
                )
                in_channels = 4 * channels
            else:
                block = BasicBlock(in_channels, channels, stride=stride, first=i == 0, vd=vd, freeze=freeze)
                in_channels = channels
            # Names of the official weights: res4b1, res4b2, ... in long stages, else res4b, res4c, ...
            tail = ("a" if i == 0 else f"b{i}") if blocks > 10 else chr(ord("a") + i)
            layers.append((f"res{number}{tail}", block))
        super().__init__(*layers)
        self.out_channels = in_channels


class Bottleneck(nn.Layer):
    """1 x 1, 3 x 3 (with the stride) and 1 x 1 convolution to four times `channels`, beside a shortcut."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        inner: int,
        stride: int,
        first: bool,
        vd: bool,
        groups: int,
        freeze: bool,
    ) -> None:
        super().__init__()
        self.branch2a = ConvNorm(in_channels, inner, 1, freeze=freeze)
        self.branch2b = ConvNorm(inner, inner, 3, stride=stride, groups=groups, freeze=freeze)
        self.branch2c = ConvNorm(inner, 4 * channels, 1, relu=False, freeze=freeze)
        self.short = _shortcut(in_channels, 4 * channels, stride=stride, vd=vd, freeze=freeze) if first else None

    def forward(self, x: Tensor) -> Tensor:
        short = x if self.short is None else self.short(x)
        return F.relu(self.branch2c(self.branch2b(self.branch2a(x))) + short)


class BasicBlock(nn.Layer):
    """Two 3 x 3 convolutions, the first with the stride, beside a shortcut."""

    def __init__(self, in_channels: int, channels: int, *, stride: int, first: bool, vd: bool, freeze: bool) -> None:
        super().__init__()
        self.branch2a = ConvNorm(in_channels, channels, 3, stride=stride, freeze=freeze)
        self.branch2b = ConvNorm(channels, channels, 3, relu=False, freeze=freeze)
        self.short = _shortcut(in_channels, channels, stride=stride, vd=vd, freeze=freeze) if first else None

    def forward(self, x: Tensor) -> Tensor:
        short = x if self.short is None else self.short(x)
        return F.relu(self.branch2b(self.branch2a(x)) + short)


def _shortcut(in_channels: int, out_channels: int, *, stride: int, vd: bool, freeze: bool) -> nn.Layer:
    if vd and stride == 2:
        return nn.Sequential(
            ("pool", nn.AvgPool2D(2, stride=2, ceil_mode=True)),
            ("conv", ConvNorm(in_channels, out_channels, 1, relu=False, freeze=freeze)),
        )
    return ConvNorm(in_channels, out_channels, 1, stride=stride, relu=False, freeze=freeze)


class ConvNorm(nn.Layer):
    """Convolution, batch norm, ReLU."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        stride: int = 1,
        groups: int = 1,
        relu: bool = True,
        freeze: bool,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2D(
            in_channels,
            out_channels,
            kernel,
            stride=stride,
            padding=kernel // 2,
            groups=groups,
            bias_attr=False,
        )
        self.norm = nn.BatchNorm2D(out_channels, use_global_stats=True if freeze else None)
        self.relu = relu
        if freeze:
            for parameter in self.norm.parameters():
                parameter.stop_gradient = True

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x))
        return F.relu(x) if self.relu else x
