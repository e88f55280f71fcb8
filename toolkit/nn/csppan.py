"""CSPPAN, the neck of PP-YOLOE: features flow from coarse to fine, then back (arXiv:2203.16250)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from toolkit.nn.cspresnet import ConvNorm, RepBlock
from toolkit.nn.resize import upsample2x_nearest


class SpatialPyramid(nn.Layer):
    """Maxima over windows of 5, 9 and 13 cells beside the input itself (SPP, arXiv:1406.4729)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = ConvNorm(4 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        # Two windows of 5 in a row see 9 cells, three see 13.
        pooled = [x]
        for _ in range(3):
            pooled.append(F.max_pool2d(pooled[-1], kernel_size=5, stride=1, padding=2))
        return self.conv(paddle.concat(pooled, axis=1))


class FusionStage(nn.Layer):
    """One half of the channels goes through blocks, the other past them; `pyramid` puts SPP amid the blocks."""

    def __init__(self, in_channels: int, out_channels: int, *, blocks: int, pyramid: bool = False) -> None:
        super().__init__()
        half = out_channels // 2
        self.conv1 = ConvNorm(in_channels, half, 1)
        self.conv2 = ConvNorm(in_channels, half, 1)
        self.convs = nn.Sequential()
        for i in range(blocks):
            self.convs.add_sublayer(str(i), RepBlock(half, residual=False))
            if pyramid and i == (blocks - 1) // 2:
                self.convs.add_sublayer("spp", SpatialPyramid(half))
        self.conv3 = ConvNorm(2 * half, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3(paddle.concat([self.conv1(x), self.convs(self.conv2(x))], axis=1))


class CSPPAN(nn.Layer):
    """Features from fine to coarse, each half the size of the one before -> fused features from coarse to fine.

    Args:
        in_channels: of the inputs, fine to coarse.
        out_channels: of the outputs, coarse to fine.
        blocks: of each stage.
    """

    def __init__(self, *, in_channels: Sequence[int], out_channels: Sequence[int], blocks: int) -> None:
        super().__init__()
        coarse_first = in_channels[::-1]
        levels = range(len(out_channels))
        # Each stage sees its backbone level and, but for the coarsest, half the channels of the stage before.
        widths = [coarse_first[i] + (out_channels[i - 1] // 2 if i else 0) for i in levels]
        self.fpn_stages = nn.LayerList(
            [nn.Sequential(FusionStage(widths[i], out_channels[i], blocks=blocks, pyramid=i == 0)) for i in levels]
        )
        self.fpn_routes = nn.LayerList([ConvNorm(c, c // 2, 1) for c in out_channels[:-1]])
        self.pan_stages = nn.LayerList(
            [
                nn.Sequential(FusionStage(coarse + fine, coarse, blocks=blocks))
                for coarse, fine in pairwise(out_channels)
            ]
        )
        self.pan_routes = nn.LayerList([ConvNorm(c, c, 3, stride=2) for c in out_channels[1:]])

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        coarse_first = features[::-1]
        down = [self.fpn_stages[0](coarse_first[0])]
        for i, route in enumerate(self.fpn_routes):
            down.append(
                self.fpn_stages[i + 1](paddle.concat([upsample2x_nearest(route(down[i])), coarse_first[i + 1]], 1))
            )
        up = down[-1:]
        for i in range(len(self.pan_routes) - 1, -1, -1):
            up.append(self.pan_stages[i](paddle.concat([self.pan_routes[i](up[-1]), down[i]], 1)))
        return up[::-1]
