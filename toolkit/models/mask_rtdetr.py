"""Mask-RT-DETR: RT-DETR (Zhao et al. 2024, arXiv:2304.08069) with a mask for every query, as in Mask DINO.

    image -> backbone -> encoder -> the best 300 places -> decoder -> class, box and mask of every query

No suppression of doubles follows: training assigns each object to one query.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from toolkit.errors import UserError
from toolkit.losses.set_loss import Objects, Pairs, Predictions, corners, match, set_losses
from toolkit.models.base import InstanceSegmentationModel
from toolkit.nn.attention import DeformableAttention, SelfAttention, pixelwise
from toolkit.nn.denominator import over_processes
from toolkit.nn.hgnetv2 import SIZES, HGNetV2
from toolkit.nn.hybrid_encoder import MaskFeatures, MaskHybridEncoder
from toolkit.nn.shape import leading

DETECTIONS = 100
STRIDES = (8, 16, 32)

# B pictures, T tokens (pixels of three levels), Q queries, D width, C classes, P prototypes (mask features)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What makes one model of the family; every field is an override of `build`."""

    backbone: str
    """Size of PP-HGNetV2."""
    width: float = 1.0
    """Factor of the backbone's channels."""
    encoder_dim: int = 256
    attended: int = 2
    """The level that the encoder's attention runs on; 0 is stride 8."""
    encoder_layers: int = 1
    encoder_feedforward: int = 1024
    expansion: float = 1.0
    """Width inside the blocks of the feature pyramid, in terms of `encoder_dim`."""
    mask_channels: Sequence[int] = (64, 64)
    prototypes: int = 128
    dim: int = 256
    """Width of the decoder."""
    queries: int = 300
    decoder_layers: int = 6
    decoder_feedforward: int = 1024
    heads: int = 8
    points: int = 4
    """Points that a head of the decoder looks at, per level."""
    num_denoising: int = 100
    """Noisy copies of a picture's objects that the decoder learns to restore, about; 0: none."""
    label_noise: float = 0.5
    """Twice the share of those copies that get a random class."""
    box_noise: float = 1.0
    """The most that a copy's centre moves, in half sides, and its sides grow or shrink, in sides."""
    mask_points: int = 12544
    """Points at which a mask is compared with an object, in training."""
    backbone_lr: float = 0.1
    """Factor of the learning rate for the backbone's stages, which Paddle's optimizers find in the parameters.
    `train.lr_multipliers` of a recipe take its place."""
    freeze: bool = True
    """Stem and norms of the backbone are not trained."""
    true_aspect: bool = False
    """Positions of pixels that are right at any shape of the input. The original's are right at square inputs only:
    at others it lays rows of `height` pixels and divides columns by the height. At square inputs both are the same."""


MODELS = {
    "Mask-RT-DETR-S": Options(backbone="S", attended=1, expansion=0.5, mask_channels=(64, 32)),
    "Mask-RT-DETR-M": Options(backbone="M", attended=1, expansion=0.5),
    "Mask-RT-DETR-L": Options(backbone="L", backbone_lr=0.05, prototypes=32),
    "Mask-RT-DETR-X": Options(
        backbone="X", backbone_lr=0.01, encoder_dim=384, encoder_feedforward=2048, mask_channels=(128, 128)
    ),
    "Mask-RT-DETR-H": Options(
        backbone="H",
        backbone_lr=0.01,
        encoder_dim=512,
        encoder_layers=2,
        encoder_feedforward=2048,
        mask_channels=(256, 128),
    ),
}

TINY: dict[str, Any] = {
    "width": 0.25,
    "encoder_dim": 64,
    "dim": 64,
    "encoder_feedforward": 128,
    "mask_channels": [32, 32],
    "prototypes": 32,
    "queries": 30,
    "decoder_layers": 2,
    "decoder_feedforward": 128,
    "heads": 4,
    "num_denoising": 20,
    "mask_points": 1024,
}
"""Overrides of Mask-RT-DETR-S for a variant that trains on a CPU in a fraction of a second a step."""


def build(name: str, *, num_classes: int, input_size: tuple[int, int] | None = None, **overrides: Any) -> MaskRTDETR:
    """Build the model `name` of `MODELS`; `overrides` are fields of `Options`.

    Raises UserError for an `input_size` that is no multiple of 32.
    """
    if input_size is not None and any(side % 32 for side in input_size):
        raise UserError(f"model {name}: input size {input_size[0]} x {input_size[1]} must be multiples of 32")
    return MaskRTDETR(dataclasses.replace(MODELS[name], **overrides), num_classes=num_classes)


class Prediction(NamedTuple):
    """What one layer says of each query."""

    logits: Tensor
    """`[B, Q, C]`"""
    boxes: Tensor
    """`[B, Q, 4]`, centre and size relative to the picture."""
    masks: Tensor
    """Vectors `[B, Q, P]`; a mask is their product with the mask features."""


class Copies(NamedTuple):
    """Noisy copies of the objects in G groups of n, the most objects that a picture has."""

    classes: Tensor
    """int64 `[B, G * n]`; C where there is no object."""
    boxes: Tensor
    """`[B, G * n, 4]`, as logits of centre and size."""
    group: int
    """n"""


class MaskRTDETR(InstanceSegmentationModel):
    """The parts put together; see `Options`."""

    def __init__(self, options: Options, *, num_classes: int) -> None:
        super().__init__()
        self.options = options
        self.num_classes = num_classes
        width = SIZES[options.backbone]
        self.backbone = HGNetV2(width if options.width == 1 else width.scaled(options.width), freeze=options.freeze)
        for parameter in self.backbone.stages.parameters():
            parameter.optimize_attr["learning_rate"] = options.backbone_lr
        inner, outer = options.mask_channels
        self.neck = MaskHybridEncoder(
            self.backbone.channels,
            dim=options.encoder_dim,
            attended=options.attended,
            layers=options.encoder_layers,
            heads=options.heads,
            feedforward=options.encoder_feedforward,
            expansion=options.expansion,
            mask_channels=(inner, outer),
            prototypes=options.prototypes,
            true_aspect=options.true_aspect,
        )
        self.transformer = _Transformer(options, num_classes=num_classes)

    def network(
        self, image: Tensor, im_shape: Tensor | None = None, threshold: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """`image` `[B, 3, h, w]`, sides multiples of 32 -> the K best of query and class, best first: boxes
        `[B, K, 4]` (x1 y1 x2 y2 in pixels of the input), scores `[B, K]`, labels `[B, K]`, mask logits
        `[B, K, h / 4, w / 4]`, which cover the whole input. `im_shape` is not looked at: the input is all picture.
        `threshold` `[1]`: rows that score less in all pictures are left out."""
        height, width = image.shape[2:]
        levels, features = self.neck.factored(self._maps(image))
        last = self.transformer(levels, features)[-1]
        count = min(DETECTIONS, last.logits.shape[1] * self.num_classes)
        scores, index = paddle.topk(F.sigmoid(last.logits).flatten(1), count, axis=1)
        scores, index = leading(threshold, scores, index)
        query, label = index.floor_divide(self.num_classes), index.mod(self.num_classes)
        boxes = corners(_take(last.boxes, query)) * paddle.to_tensor([width, height, width, height], "float32")
        masks = features.masks(_take(last.masks, query))
        return boxes, scores, label, masks.reshape([0, 0, *features.size])

    def _maps(self, image: Tensor) -> list[Tensor]:
        height, width = image.shape[2:]
        if height % 32 or width % 32:  # -1, a size left open in an exported graph, is none either
            raise UserError(f"Mask-RT-DETR: input of {height} x {width}: sides must be fixed, and multiples of 32")
        return list(self.backbone(image))

    def losses(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        image = batch["image"]
        objects = self._objects_of(batch)
        copies = self._copies(objects)
        *levels, features = self.neck(self._maps(image))
        predictions = self.transformer(levels, MaskFeatures(features.detach().flatten(2), features.shape[2:]), copies)
        # Matching and sampling need the full precision; under AMP the network gives less.
        with paddle.amp.auto_cast(enable=False):
            features = features.astype("float32")
            selected, *decoded = (Prediction(*(part.astype("float32") for part in each)) for each in predictions)
            count = over_processes(paddle.to_tensor(float(sum(objects.counts))))
            points = self.options.mask_points
            hidden = 0 if copies is None else copies.classes.shape[1]
            main = Predictions(
                *(
                    paddle.stack([first, *(part[:, hidden:] for part in rest)])
                    for first, *rest in zip(selected, *decoded, strict=True)
                )
            )
            pairs = match(main, features, objects, points=points) if sum(objects.counts) else None
            losses = _named(set_losses(main, features, objects, pairs, count=count, points=points), suffix="")
            if copies is None:
                losses |= {f"{name}_dn": paddle.zeros([]) for name in losses}
            else:
                restored = Predictions(
                    *(paddle.stack([part[:, :hidden] for part in parts]) for parts in zip(*decoded, strict=True))
                )
                groups = hidden // copies.group
                known = _known_pairs(objects.counts, layers=len(decoded), groups=groups, group=copies.group)
                restoring = set_losses(restored, features, objects, known, count=count * groups, points=points)
                losses |= _named(restoring, suffix="_dn")
        return losses | {"loss": paddle.add_n(list(losses.values()))}

    @staticmethod
    def _objects_of(batch: dict[str, Any]) -> Objects:
        height, width = batch["image"].shape[2:]
        boxes = paddle.concat([own.reshape([-1, 4]) for own in batch["gt_bbox"]]).astype("float32")
        low, high = (boxes / paddle.to_tensor([width, height, width, height], "float32")).chunk(2, axis=-1)
        return Objects(
            counts=[len(classes) for classes in batch["gt_class"]],
            classes=paddle.concat([own.flatten() for own in batch["gt_class"]]).astype("int64"),
            boxes=paddle.concat([(low + high) / 2, high - low], axis=-1),
            masks=paddle.concat([own.reshape([-1, height, width]) for own in batch["gt_mask"]]).astype("float32"),
        )

    @paddle.no_grad()
    def _copies(self, objects: Objects) -> Copies | None:
        """Copies of the objects with some classes wrong and all boxes moved (DN-DETR, Li et al. 2022)."""
        most = max(objects.counts)
        if self.options.num_denoising == 0 or most == 0:
            return None
        groups = max(self.options.num_denoising // most, 1)
        padding = [most - count for count in objects.counts]
        classes = _padded(objects.classes, objects.counts, padding, value=self.num_classes).tile([1, groups])
        boxes = _padded(objects.boxes, objects.counts, padding, value=0).tile([1, groups, 1])

        random_class = (paddle.rand(classes.shape) * self.num_classes).astype("int64").clip(max=self.num_classes - 1)
        wrong = (paddle.rand(classes.shape) < self.options.label_noise / 2) & (classes < self.num_classes)
        side = boxes[..., 2:]
        reach = paddle.concat([side / 2, side], axis=-1) * self.options.box_noise
        boxes = boxes + reach * (2 * paddle.rand(boxes.shape) - 1)
        return Copies(paddle.where(wrong, random_class, classes), _logit(boxes), most)


class _Transformer(nn.Layer):
    """Chooses queries among the pixels of the encoder's levels and refines them layer by layer."""

    def __init__(self, options: Options, *, num_classes: int) -> None:
        super().__init__()
        dim = options.dim
        self.queries = options.queries
        self.true_aspect = options.true_aspect
        self.input_proj = nn.LayerList([_projection(options.encoder_dim, dim) for _ in STRIDES])
        self.decoder = _Decoder(options)
        self.denoising_class_embed = nn.Embedding(num_classes, dim, weight_attr=nn.initializer.Normal())
        self.query_pos_head = _MLP(4, 2 * dim, dim, layers=2)
        self.mask_query_head = _MLP(dim, dim, options.prototypes, layers=3)
        self.enc_output = nn.Sequential(nn.Linear(dim, dim), nn.LayerNorm(dim))
        self.dec_norm = nn.LayerNorm(dim)
        # A class is rare to begin with (probability 0.01), and boxes start where their query is.
        rare = nn.initializer.Constant(-math.log(99))
        self.score_head = nn.Linear(dim, num_classes, bias_attr=rare)
        self.bbox_head = _MLP(dim, dim, 4, layers=3)
        for parameter in self.bbox_head.layers[-1].parameters():
            nn.initializer.Constant(0.0)(parameter)

    def forward(
        self, levels: Sequence[Tensor], features: MaskFeatures, copies: Copies | None = None
    ) -> list[Prediction]:
        """Predictions of the chosen pixels, with `copies` of the queries before the first layer, and of each decoder
        layer; in eval mode the last layer's alone. All but the first have the copies in front of the queries."""
        maps = [project(level) for project, level in zip(self.input_proj, levels, strict=True)]
        sizes = [(level.shape[2], level.shape[3]) for level in maps]
        # Gradients that add up in another order leave the golden figures: training keeps to layers on rows of pixels.
        memory = _tokens(maps) if self.training else None
        selected, content = self._select(memory, maps, sizes)
        predictions = [selected]

        boxes = _mask_boxes(features.masks(selected.masks.detach()), features.size)
        content, place, mask = content.detach(), _logit(boxes), None
        if copies is not None:
            nothing = paddle.zeros([1, content.shape[-1]])
            embedded = F.embedding(copies.classes, paddle.concat([self.denoising_class_embed.weight, nothing]))
            content = paddle.concat([embedded.astype(content.dtype), content], axis=1)
            place = paddle.concat([copies.boxes, place], axis=1)
            mask = _separation(copies.classes.shape[1], copies.group, content.shape[1])
            predictions.append(self._predict(content, F.sigmoid(place)))

        # Each layer corrects the boxes of the layer before; the gradient passes through one correction back (DINO's
        # look forward twice, Zhang et al. 2023). The head is called for each of its two uses: gradients that add up in
        # another order leave the golden figures within a few steps.
        boxes, previous = F.sigmoid(place), None
        for layer in self.decoder.layers:
            attention = layer.cross_attn
            values = pixelwise(attention.value_proj, maps) if memory is None else attention.values(memory, sizes)
            content = layer(content, self.query_pos_head(boxes), boxes, values, mask)
            corrected = F.sigmoid(self.bbox_head(content) + _logit(boxes))
            if self.training:
                said = corrected if previous is None else F.sigmoid(self.bbox_head(content) + _logit(previous))
                predictions.append(self._predict(content, said))
            boxes, previous = corrected.detach(), corrected
        return predictions if self.training else [self._predict(content, boxes)]

    def _select(
        self, memory: Tensor | None, maps: Sequence[Tensor], sizes: Sequence[tuple[int, int]]
    ) -> tuple[Prediction, Tensor]:
        """The pixels of highest class score, from `memory`, the pixels of `maps` in a row, or from `maps` themselves:
        their predictions, and their content `[B, Q, D]`."""
        anchors, inside = self._anchors(sizes)
        linear, norm = self.enc_output
        if memory is None:
            # By convolutions, which those before them are folded into when the network is exported.
            content = norm(_tokens(pixelwise(linear, maps, bias=False)) * inside.astype("float32") + linear.bias)
        else:
            content = norm(linear(paddle.where(inside, memory, paddle.zeros_like(memory))))
        index = self.score_head(content).max(-1).topk(min(self.queries, content.shape[1]), axis=1)[1]
        chosen = _take(content, index)
        start = paddle.gather(anchors[0], index.flatten()).reshape([*index.shape, 4])
        return self._predict(chosen, F.sigmoid(self.bbox_head(chosen) + start)), chosen

    def _anchors(self, sizes: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor]:
        """Logits `[1, T, 4]` of a small box on every pixel, and which pixels are not at the border, `[1, T, 1]`."""
        boxes = []
        for level, (height, width) in enumerate(sizes):
            token = paddle.arange(height * width)
            x = (token.mod(width).astype("float32") + 0.5) / (width if self.true_aspect else height)
            y = (token.floor_divide(width).astype("float32") + 0.5) / (height if self.true_aspect else width)
            side = paddle.full_like(x, 0.05 * 2**level)
            boxes.append(paddle.stack([x, y, side, side], axis=-1))
        anchors = paddle.concat(boxes).unsqueeze(0)
        inside = ((anchors > 0.01) & (anchors < 0.99)).all(-1, keepdim=True)
        return paddle.where(inside, (anchors / (1 - anchors)).log(), paddle.full_like(anchors, math.inf)), inside

    def _predict(self, content: Tensor, boxes: Tensor) -> Prediction:
        content = self.dec_norm(content)
        return Prediction(self.score_head(content), boxes, self.mask_query_head(content))


class _Decoder(nn.Layer):
    def __init__(self, options: Options) -> None:
        super().__init__()
        self.layers = nn.LayerList([_DecoderLayer(options) for _ in range(options.decoder_layers)])


class _DecoderLayer(nn.Layer):
    def __init__(self, options: Options) -> None:
        super().__init__()
        dim, heads = options.dim, options.heads
        xavier = nn.initializer.XavierUniform()
        self.self_attn = SelfAttention(dim, heads=heads)
        self.norm1 = nn.LayerNorm(dim)
        self.cross_attn = DeformableAttention(dim, heads=heads, levels=len(STRIDES), points=options.points)
        self.norm2 = nn.LayerNorm(dim)
        self.linear1 = nn.Linear(dim, options.decoder_feedforward, weight_attr=xavier)
        self.linear2 = nn.Linear(options.decoder_feedforward, dim, weight_attr=xavier)
        self.norm3 = nn.LayerNorm(dim)

    def forward(
        self,
        x: Tensor,
        position: Tensor,
        boxes: Tensor,
        values: Sequence[Tensor],
        mask: Tensor | None,
    ) -> Tensor:
        x = self.norm1(x + self.self_attn(x, position=position, mask=mask))
        x = self.norm2(x + self.cross_attn(x + position, boxes=boxes, values=values))
        return self.norm3(x + self.linear2(F.relu(self.linear1(x))))


class _MLP(nn.Layer):
    def __init__(self, in_features: int, hidden: int, out_features: int, *, layers: int) -> None:
        super().__init__()
        widths = [in_features, *[hidden] * (layers - 1), out_features]
        xavier = nn.initializer.XavierUniform()
        self.layers = nn.LayerList([nn.Linear(a, b, weight_attr=xavier) for a, b in pairwise(widths)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


def _projection(in_channels: int, dim: int) -> nn.Sequential:
    conv = nn.Conv2D(in_channels, dim, 1, weight_attr=nn.initializer.XavierUniform(), bias_attr=False)
    return nn.Sequential(("conv", conv), ("norm", nn.BatchNorm2D(dim)))


def _mask_boxes(logits: Tensor, size: Sequence[int]) -> Tensor:
    """Boxes `[B, Q, 4]` (centre and size, relative) around masks `[B, Q, h * w]`; all zero around an empty mask."""
    height, width = size
    masks = logits.reshape([0, 0, height, width])
    sides = []
    for axis, length in ((2, width), (3, height)):
        index = paddle.arange(length, dtype="float32")
        hit = masks.max(axis) > 0  # [B, Q, length]
        low = paddle.where(hit, index, paddle.full_like(index, length)).min(-1)
        high = paddle.where(hit, index + 1, paddle.zeros_like(index)).max(-1)
        sides.append((paddle.minimum(low, high) / length, high / length))
    (left, right), (top, bottom) = sides
    return paddle.stack([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top], axis=-1)


def _separation(hidden: int, group: int, total: int) -> Tensor:
    """Mask `[total, total]` of the attention among queries, of which the first `hidden` are copies: a copy sees its
    group and the queries, a query sees queries only."""
    number = paddle.arange(total).floor_divide(group)
    number = paddle.where(paddle.arange(total) < hidden, number, paddle.full_like(number, -1))
    seen = (number.unsqueeze(1) == number) | (number == -1)
    return paddle.where(seen, paddle.zeros([1]), paddle.full([1], -math.inf))


def _logit(x: Tensor) -> Tensor:
    """Inverse of the sigmoid, finite at 0 and 1."""
    x = x.clip(0, 1)
    return (x.clip(min=1e-5) / (1 - x).clip(min=1e-5)).log()


def _tokens(maps: Sequence[Tensor]) -> Tensor:
    """The pixels of L maps `[B, D, h, w]` in a row, `[B, T, D]`."""
    return paddle.concat([level.flatten(2).transpose([0, 2, 1]) for level in maps], axis=1)


def _take(x: Tensor, index: Tensor) -> Tensor:
    """Rows `index` `[B, K]` of `x` `[B, T, D]`: `[B, K, D]`."""
    return paddle.take_along_axis(x, index.unsqueeze(-1), axis=1)


def _padded(rows: Tensor, counts: Sequence[int], padding: Sequence[int], *, value: float) -> Tensor:
    """`[N, *]`, of which each picture owns the next of `counts` -> `[B, n, *]`, filled up with `value`."""
    start, parts = 0, []
    for count, missing in zip(counts, padding, strict=True):
        filler = paddle.full([missing, *rows.shape[1:]], value, rows.dtype)
        parts.append(paddle.concat([rows[start : start + count], filler]))
        start += count
    return paddle.stack(parts)


def _known_pairs(counts: Sequence[int], *, layers: int, groups: int, group: int) -> Pairs:
    """Copies know their objects: in each group, query i of a picture is its object i."""
    within = np.concatenate([np.arange(count) for count in counts]).astype("int64")
    queries = within + group * np.arange(groups)[:, None]
    return Pairs(
        counts=list(counts),
        queries=np.broadcast_to(queries, (layers, *queries.shape)),
        objects=np.broadcast_to(np.arange(len(within)), (layers, len(within))),
    )


def _named(losses: dict[str, Tensor], *, suffix: str) -> dict[str, Tensor]:
    """Sums `[L]` per object, by the names that PaddleDetection logs: the last layer's, and the others' together."""
    return {f"loss_{name}{suffix}": value[-1] for name, value in losses.items()} | {
        f"loss_{name}_aux{suffix}": value[:-1].sum() for name, value in losses.items()
    }
