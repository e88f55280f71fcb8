"""PP-HGNetV2, a convolutional backbone whose blocks concatenate the outputs of all their layers."""

from __future__ import annotations

from typing import NamedTuple

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from toolkit.nn.conv import ConvNorm


class Stage(NamedTuple):
    """One resolution of the network."""

    mid: int
    """Channels of the layers inside a block."""
    out: int
    blocks: int
    layers: int
    """Layers of a block."""
    light: bool
    """Layers are a 1 x 1 and a depthwise 5 x 5 convolution instead of one 3 x 3."""


class Width(NamedTuple):
    """Size of a backbone: channels inside and after the stem, and four stages at strides 4, 8, 16, 32."""

    stem: tuple[int, int]
    stages: tuple[Stage, Stage, Stage, Stage]

    def scaled(self, factor: float) -> Width:
        """The same with `factor` times the channels, in multiples of four."""

        def times(channels: int) -> int:
            return max(4, round(channels * factor / 4) * 4)

        one, two, three, four = (stage._replace(mid=times(stage.mid), out=times(stage.out)) for stage in self.stages)
        return Width((times(self.stem[0]), times(self.stem[1])), (one, two, three, four))


SIZES = {
    "S": Width(
        (24, 32),
        (
            Stage(32, 64, 1, 3, False),
            Stage(48, 256, 1, 3, False),
            Stage(96, 512, 2, 3, True),
            Stage(192, 1024, 1, 3, True),
        ),
    ),
    "M": Width(
        (24, 32),
        (
            Stage(32, 96, 1, 4, False),
            Stage(64, 384, 1, 4, False),
            Stage(128, 768, 3, 4, True),
            Stage(256, 1536, 1, 4, True),
        ),
    ),
    "L": Width(
        (32, 48),
        (
            Stage(48, 128, 1, 6, False),
            Stage(96, 512, 1, 6, False),
            Stage(192, 1024, 3, 6, True),
            Stage(384, 2048, 1, 6, True),
        ),
    ),
    "X": Width(
        (32, 64),
        (
            Stage(64, 128, 1, 6, False),
            Stage(128, 512, 2, 6, False),
            Stage(256, 1024, 5, 6, True),
            Stage(512, 2048, 2, 6, True),
        ),
    ),
    "H": Width(
        (48, 96),
        (
            Stage(96, 192, 2, 6, False),
            Stage(192, 512, 3, 6, False),
            Stage(384, 1024, 6, 6, True),
            Stage(768, 2048, 3, 6, True),
        ),
    ),
}


class HGNetV2(nn.Layer):
    """`[B, 3, h, w]` -> four feature maps at strides 4, 8, 16 and 32.

    `freeze`: the stem and all norms keep their pretrained values, and norms use their running statistics.
    """

    def __init__(self, width: Width, *, freeze: bool = True) -> None:
        super().__init__()
        self.channels = [stage.out for stage in width.stages]
        self.stem = _Stem(*width.stem)
        inputs = [width.stem[1], *self.channels[:-1]]
        self.stages = nn.LayerList(
            [
                _Stage(channels, stage, downsample=index > 0)
                for index, (channels, stage) in enumerate(zip(inputs, width.stages, strict=True))
            ]
        )
        for layer in self.sublayers():
            if isinstance(layer, nn.Conv2D):
                nn.initializer.KaimingNormal()(layer.weight)
        if freeze:
            self._freeze()

    def forward(self, image: Tensor) -> list[Tensor]:
        x = self.stem(image)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features

    def _freeze(self) -> None:
        for parameter in self.stem.parameters():
            parameter.stop_gradient = True
        for layer in self.sublayers():
            if isinstance(layer, nn.BatchNorm2D):
                layer._use_global_stats = True
                layer.weight.stop_gradient = True
                layer.bias.stop_gradient = True


class _Stem(nn.Layer):
    """Stride 4. Two branches, a max pool and a pair of 2 x 2 convolutions, meet in the middle."""

    def __init__(self, mid: int, out: int) -> None:
        super().__init__()
        self.stem1 = ConvNorm(3, mid, 3, stride=2, activation=F.relu)
        self.stem2a = ConvNorm(mid, mid // 2, 2, padding=0, activation=F.relu)
        self.stem2b = ConvNorm(mid // 2, mid, 2, padding=0, activation=F.relu)
        self.stem3 = ConvNorm(mid * 2, mid, 3, stride=2, activation=F.relu)
        self.stem4 = ConvNorm(mid, out, 1, activation=F.relu)

    def forward(self, x: Tensor) -> Tensor:
        x = _pad_one(self.stem1(x))
        # What is pooled has passed a ReLU, so the zeros of the padding never win.
        pooled = F.max_pool2d(x, kernel_size=2, stride=1)
        convolved = self.stem2b(_pad_one(self.stem2a(x)))
        return self.stem4(self.stem3(paddle.concat([pooled, convolved], axis=1)))


def _pad_one(x: Tensor) -> Tensor:
    """One row below and one column to the right, so that a 2 x 2 kernel keeps the size."""
    # Not F.pad: of its two operators, oneDNN overruns its memory in one, and paddle2onnx fills with noise in the other.
    x = paddle.concat([x, paddle.zeros_like(x[:, :, :1])], axis=2)
    return paddle.concat([x, paddle.zeros_like(x[:, :, :, :1])], axis=3)


class _Stage(nn.Layer):
    def __init__(self, in_channels: int, size: Stage, *, downsample: bool) -> None:
        super().__init__()
        self.downsample = (
            ConvNorm(in_channels, in_channels, 3, stride=2, groups=in_channels) if downsample else nn.Identity()
        )
        self.blocks = nn.Sequential(
            *[_Block(in_channels if i == 0 else size.out, size, residual=i > 0) for i in range(size.blocks)]
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.downsample(x))


class _Block(nn.Layer):
    """A chain of layers; the input and every layer's output are concatenated and mixed by two 1 x 1 convolutions."""

    def __init__(self, in_channels: int, size: Stage, *, residual: bool) -> None:
        super().__init__()
        inputs = [in_channels] + [size.mid] * (size.layers - 1)
        self.residual = residual
        self.layers = nn.LayerList(
            [
                _LightLayer(channels, size.mid) if size.light else ConvNorm(channels, size.mid, 3, activation=F.relu)
                for channels in inputs
            ]
        )
        total = in_channels + size.layers * size.mid
        self.aggregation_squeeze_conv = ConvNorm(total, size.out // 2, 1, activation=F.relu)
        self.aggregation_excitation_conv = ConvNorm(size.out // 2, size.out, 1, activation=F.relu)

    def forward(self, x: Tensor) -> Tensor:
        outputs = [x]
        for layer in self.layers:
            outputs.append(layer(outputs[-1]))
        mixed = self.aggregation_excitation_conv(self.aggregation_squeeze_conv(paddle.concat(outputs, axis=1)))
        return mixed + x if self.residual else mixed


class _LightLayer(nn.Layer):
    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(in_channels, channels, 1)
        self.conv2 = ConvNorm(channels, channels, 5, groups=channels, activation=F.relu)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.conv1(x))
