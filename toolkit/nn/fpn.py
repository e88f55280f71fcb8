"""Feature pyramid (Lin et al. 2017): what coarse maps know is added to the finer ones."""

from __future__ import annotations

from collections.abc import Sequence

import paddle.nn.functional as F
from paddle import ParamAttr, Tensor, nn
from paddle.nn.initializer import XavierUniform

from toolkit.nn.resize import upsample2x_nearest


class FPN(nn.Layer):
    """Maps of res2 to res5 -> five maps of `out_channels`, strides 4, 8, 16, 32 and 64.

    Each side of a map must be half of the next finer one's, so those of the picture multiples of 32.
    """

    def __init__(self, *, in_channels: Sequence[int], out_channels: int = 256) -> None:
        super().__init__()
        # Names as in the official weights; the coarsest one's has no "lateral".
        self._names = [(f"fpn_inner_res{i}_sum" + "_lateral" * (i < 5), f"fpn_res{i}_sum") for i in (2, 3, 4, 5)]
        for (lateral, output), channels in zip(self._names, in_channels, strict=True):
            attr = ParamAttr(initializer=XavierUniform(fan_out=channels))
            self.add_sublayer(lateral, nn.Conv2D(channels, out_channels, 1, weight_attr=attr))
            attr = ParamAttr(initializer=XavierUniform())
            self.add_sublayer(output, nn.Conv2D(out_channels, out_channels, 3, padding=1, weight_attr=attr))

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        maps: list[Tensor] = []
        above = None
        for (lateral, output), x in zip(reversed(self._names), reversed(features), strict=True):
            x = getattr(self, lateral)(x)
            above = x if above is None else x + upsample2x_nearest(above)
            maps.insert(0, getattr(self, output)(above))
        return [*maps, F.max_pool2d(maps[-1], 1, stride=2)]
