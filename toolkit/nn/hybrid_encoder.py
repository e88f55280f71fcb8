"""The encoder of RT-DETR (Zhao et al. 2024), with the mask features of Mask-RT-DETR."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from toolkit.nn.attention import SelfAttention
from toolkit.nn.conv import ConvNorm
from toolkit.nn.resize import resize_bilinear, upsample2x_nearest


class MaskFeatures(NamedTuple):
    """What the vectors of queries make masks of."""

    maps: Tensor
    """`[B, F, h * w]`."""
    size: Sequence[int]
    """h and w."""
    mix: Tensor | None = None
    """`[P, F]`: a vector's product with it weighs the maps; without it the vector itself does, and F is P."""

    def masks(self, vectors: Tensor) -> Tensor:
        """Vectors `[B, n, P]` -> logits `[B, n, h * w]`."""
        return paddle.matmul(vectors if self.mix is None else paddle.matmul(vectors, self.mix), self.maps)


class MaskHybridEncoder(nn.Layer):
    """Feature maps at strides 4, 8, 16, 32 -> three of width `dim` at strides 8, 16, 32, and the mask features
    `[B, prototypes, h, w]` at stride 4.

    Attention runs on one level, `attended` (0: stride 8), then a feature pyramid down and up again.

    `true_aspect`: see `MaskRTDETR`.
    """

    def __init__(
        self,
        channels: Sequence[int],
        *,
        dim: int,
        attended: int,
        layers: int,
        heads: int,
        feedforward: int,
        expansion: float,
        mask_channels: tuple[int, int],
        prototypes: int,
        true_aspect: bool,
    ) -> None:
        super().__init__()
        self.attended = attended
        self.true_aspect = true_aspect
        self.input_proj = nn.LayerList(
            [nn.Sequential(nn.Conv2D(c, dim, 1, bias_attr=False), nn.BatchNorm2D(dim)) for c in channels[1:]]
        )
        self.encoder = nn.LayerList([_Encoder(dim, layers=layers, heads=heads, feedforward=feedforward)])
        self.lateral_convs = nn.LayerList([ConvNorm(dim, dim, 1, activation=_swish) for _ in range(2)])
        self.fpn_blocks = nn.LayerList([_CspRep(2 * dim, dim, expansion) for _ in range(2)])
        self.downsample_convs = nn.LayerList([ConvNorm(dim, dim, 3, stride=2, activation=_swish) for _ in range(2)])
        self.pan_blocks = nn.LayerList([_CspRep(2 * dim, dim, expansion) for _ in range(2)])

        inner, outer = mask_channels
        self.mask_feat_head = _MaskFeatures(dim, inner, outer)
        self.upsample = _Double("bilinear")
        self.repeat = _Double("nearest")
        self.enc_mask_lateral = ConvNorm(channels[0], outer, 3, activation=_swish)
        self.enc_mask_output = nn.Sequential(
            ConvNorm(outer, outer, 3, activation=_swish), nn.Conv2D(outer, prototypes, 1)
        )

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        *levels, masks = self._pyramid(features)
        return [*levels, self.enc_mask_output[1](masks)]

    def factored(self, features: Sequence[Tensor]) -> tuple[list[Tensor], MaskFeatures]:
        """The three levels, and the mask features in the form that masks cost least with, for use without gradients:
        a product with the outputs W x + b of the last convolution is one with its fewer inputs, v (W x + b) =
        (v W) x + v b, whose b weighs one more map, of ones."""
        *levels, maps = self._pyramid(features)
        last, size = self.enc_mask_output[1], maps.shape[2:]
        outputs, inputs = last.weight.shape[:2]
        if inputs > outputs:
            return levels, MaskFeatures(last(maps).flatten(2), size)
        mix = paddle.concat([last.weight.flatten(1), last.bias.unsqueeze(1)], axis=1)
        rows = maps.flatten(2)
        return levels, MaskFeatures(paddle.concat([rows, paddle.ones_like(rows[:, :1])], axis=1), size, mix)

    def _pyramid(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Three levels, and what the last convolution of the mask features takes."""
        finest, *coarser = features
        levels = [project(level) for project, level in zip(self.input_proj, coarser, strict=True)]
        levels[self.attended] = self._attend(levels[self.attended])

        # Down the pyramid. What goes up again is the lateral map, not the one that came down.
        top = self.lateral_convs[0](levels[2])
        middle = self.fpn_blocks[0](paddle.concat([self.repeat(top), levels[1]], axis=1))
        middle = self.lateral_convs[1](middle)
        bottom = self.fpn_blocks[1](paddle.concat([self.repeat(middle), levels[0]], axis=1))
        # And up.
        middle = self.pan_blocks[0](paddle.concat([self.downsample_convs[0](bottom), middle], axis=1))
        top = self.pan_blocks[1](paddle.concat([self.downsample_convs[1](middle), top], axis=1))

        masks = self.upsample(self.mask_feat_head(bottom, middle, top)) + self.enc_mask_lateral(finest)
        return [bottom, middle, top, self.enc_mask_output[0](masks)]

    def _attend(self, x: Tensor) -> Tensor:
        _, dim, height, width = x.shape
        position = _sine_position(height, width, dim, inner=width if self.true_aspect else height)
        tokens = self.encoder[0](x.flatten(2).transpose([0, 2, 1]), position)
        # Not the other way round: oneDNN fuses a reshape with the transposition before it, and mistakes the shape.
        return tokens.reshape([-1, height, width, dim]).transpose([0, 3, 1, 2])


def _sine_position(height: int, width: int, dim: int, *, inner: int) -> Tensor:
    """`[1, height * width, dim]`: sine and cosine of row and column. Rows have `inner` pixels; `width` is right."""
    token = paddle.arange(height * width)
    frequency = 1.0 / 10000.0 ** (paddle.arange(dim // 4, dtype="float32") / (dim // 4))
    row, column = (
        index.astype("float32").unsqueeze(1) * frequency for index in (token.floor_divide(inner), token.mod(inner))
    )
    return paddle.concat([row.sin(), row.cos(), column.sin(), column.cos()], axis=1).unsqueeze(0)


class _Encoder(nn.Layer):
    def __init__(self, dim: int, *, layers: int, heads: int, feedforward: int) -> None:
        super().__init__()
        self.layers = nn.LayerList([_EncoderLayer(dim, heads=heads, feedforward=feedforward) for _ in range(layers)])

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x, position)
        return x


class _EncoderLayer(nn.Layer):
    def __init__(self, dim: int, *, heads: int, feedforward: int) -> None:
        super().__init__()
        self.self_attn = SelfAttention(dim, heads=heads)
        self.norm1 = nn.LayerNorm(dim)
        self.linear1 = nn.Linear(dim, feedforward)
        self.linear2 = nn.Linear(feedforward, dim)
        self.norm2 = nn.LayerNorm(dim)

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        x = self.norm1(x + self.self_attn(x, position=position))
        return self.norm2(x + self.linear2(F.gelu(self.linear1(x))))


class _CspRep(nn.Layer):
    """Two 1 x 1 paths, one with three RepVGG blocks behind it, added up."""

    def __init__(self, in_channels: int, out_channels: int, expansion: float) -> None:
        super().__init__()
        hidden = int(out_channels * expansion)
        self.conv1 = ConvNorm(in_channels, hidden, 1, activation=_swish)
        self.conv2 = ConvNorm(in_channels, hidden, 1, activation=_swish)
        self.bottlenecks = nn.Sequential(*[_RepVgg(hidden) for _ in range(3)])
        self.conv3 = nn.Identity() if hidden == out_channels else ConvNorm(hidden, out_channels, 1, activation=_swish)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3(self.bottlenecks(self.conv1(x)) + self.conv2(x))


class _RepVgg(nn.Layer):
    """A 3 x 3 and a 1 x 1 convolution side by side (Ding et al. 2021)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(channels, channels, 3)
        self.conv2 = ConvNorm(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(self.conv1(x) + self.conv2(x))


class _MaskFeatures(nn.Layer):
    """Brings three levels to stride 8 and adds them up (Kirillov et al. 2019)."""

    def __init__(self, dim: int, inner: int, outer: int) -> None:
        super().__init__()
        # The nesting gives the keys that official weights have; odd places are the doublings.
        self.scale_heads = nn.LayerList(
            [
                nn.Sequential(_wrapped(dim, inner)),
                nn.Sequential(_wrapped(dim, inner), _Double("bilinear")),
                nn.Sequential(_wrapped(dim, inner), _Double("bilinear"), _wrapped(inner, inner), _Double("bilinear")),
            ]
        )
        self.output_conv = ConvNorm(inner, outer, 3, activation=_swish)

    def forward(self, *levels: Tensor) -> Tensor:
        bottom, middle, top = (head(level) for head, level in zip(self.scale_heads, levels, strict=True))
        return self.output_conv(bottom + middle + top)


def _wrapped(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(ConvNorm(in_channels, out_channels, 3, activation=_swish))


class _Double(nn.Layer):
    """Twice the resolution, `nearest` or `bilinear`."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.mode = mode

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return F.interpolate(x, scale_factor=2, mode=self.mode)
        # What is exported has no interpolate operator.
        return upsample2x_nearest(x) if self.mode == "nearest" else resize_bilinear(x, (2 * x.shape[2], 2 * x.shape[3]))


def _swish(x: Tensor) -> Tensor:
    # F.silu rounds otherwise, and the golden figures after a training step feel it.
    return x * F.sigmoid(x)
