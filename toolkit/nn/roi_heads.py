"""What R-CNNs compute for each region of interest: features, class and box, mask (He et al. 2017).

Legend: B pictures, S regions a picture, R regions at work (those of the B * S that are used, in any order), C classes,
m side of a mask.
"""

from __future__ import annotations

from collections.abc import Sequence

import paddle
import paddle.nn.functional as F
from paddle import ParamAttr, Tensor, nn
from paddle.nn.initializer import KaimingNormal, Normal, XavierUniform
from paddle.vision.ops import roi_align

from toolkit.nn.boxes import clip, decode, encode
from toolkit.nn.denominator import over_processes
from toolkit.nn.nms import select
from toolkit.nn.sampling import Targets
from toolkit.nn.shape import take

DETECTIONS = 100
SCORE_THRESHOLD = 0.05
OVERLAP = 0.5
"""Detections that overlap a better one of their class by more are dropped."""

PAIRS = 4000
"""Pairs of region and class of a picture that take part in that; a trained model has some hundreds above the
threshold."""


def region_features(
    features: Sequence[Tensor], boxes: Tensor, used: Tensor, *, strides: Sequence[int], resolution: int
) -> tuple[Tensor, Tensor]:
    """Cut regions out of the level of the pyramid that suits their size.

    Args:
        features: levels, finest first; strides: theirs, in pixels of the network input.
        boxes: `[B, S, 4]`, x1 y1 x2 y2 in pixels of the network input.
        used: bool `[B, S]`; the other regions are left out.

    Returns features `[R, channels, resolution, resolution]`, and `[R]`, which of the B * S regions these are: level
    after level, because putting them in order would move a lot of memory.
    """
    sides = (boxes[..., 2:] - boxes[..., :2]).clip(min=0.0)
    # Stride 16 is for regions of 224 pixels.
    size = sides.prod(axis=2).sqrt() / (224 * strides[0] / 16)
    level = paddle.log2(size + 1e-8).floor().clip(0, len(strides) - 1)
    parts, order = [], []
    for i, stride in enumerate(strides):
        here = used & (level == i)
        index = paddle.nonzero(here.flatten()).flatten()
        count = here.astype("int32").sum(axis=1, dtype="int32")
        rois = paddle.gather(boxes.reshape([-1, 4]), index)
        parts.append(roi_align(features[i], rois, count, resolution, 1 / stride, aligned=False))
        order.append(index)
    back = paddle.argsort(paddle.concat(order))
    return paddle.gather(paddle.concat(parts), back), paddle.gather(paddle.concat(order), back)


def rows(x: Tensor, index: Tensor) -> Tensor:
    """Rows `index` `[R]` of `x` `[B, S, ...]`, counted through all pictures."""
    return paddle.gather(x.flatten(0, 1), index)


def in_order(x: Tensor, index: Tensor, boxes: Tensor) -> Tensor:
    """Rows `x` `[B * S, n]` of all regions, found in the order `index`, as `[B, S, n]` like `boxes` `[B, S, 4]`."""
    return paddle.gather(x, paddle.argsort(index)).reshape([-1, boxes.shape[1], x.shape[1]])


def at_least_one(used: Tensor) -> Tensor:
    """`used` `[B, S]` with the very first set: operators and gradients need not know of emptiness."""
    first = paddle.cumsum(paddle.ones_like(used, "int32").flatten()).reshape(used.shape) == 1
    return used | first


class TwoLayers(nn.Layer):
    """Two fully connected layers: `[R, channels, 7, 7]` -> `[R, width]`."""

    def __init__(self, *, in_channels: int, width: int = 1024, resolution: int = 7) -> None:
        super().__init__()
        self.fc6 = nn.Linear(in_channels * resolution**2, width, ParamAttr(initializer=XavierUniform()))
        self.fc7 = nn.Linear(width, width, ParamAttr(initializer=XavierUniform()))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.fc7(F.relu(self.fc6(x.flatten(1)))))


def score_layer(width: int, num_classes: int) -> nn.Linear:
    """Logits of the classes and, last, of the background."""
    return nn.Linear(width, num_classes + 1, ParamAttr(initializer=Normal(std=0.01)))


def delta_layer(width: int, boxes: int) -> nn.Linear:
    """Changes of the region's box: one for each class, or one for all."""
    return nn.Linear(width, 4 * boxes, ParamAttr(initializer=Normal(std=0.001)))


def box_losses(
    logits: Tensor, deltas: Tensor, targets: Targets, index: Tensor, *, weights: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """Cross entropy of the classes and distance of the boxes, both averaged over the regions at work.

    Args:
        logits: `[R, C + 1]`; deltas: `[R, 4 C]`, or `[R, 4]` for all classes.
        index: `[R]`, which of the B * S targets the rows are.
        weights: of the deltas, see `encode`.
    """
    num_classes = logits.shape[1] - 1
    labels, boxes, goals = (rows(part, index) for part in (targets.labels, targets.boxes, targets.goals))
    if deltas.shape[1] > 4:
        own = labels.clip(max=num_classes - 1).reshape([-1, 1, 1]).expand([-1, 1, 4])
        deltas = paddle.take_along_axis(deltas.reshape([-1, num_classes, 4]), own, axis=1).squeeze(1)
    distance = (deltas - encode(goals, boxes, weights=weights)).abs().sum(axis=1)
    count = over_processes(paddle.to_tensor(float(len(index))))
    on_object = (labels < num_classes).astype(distance.dtype)
    return F.cross_entropy(logits, labels, reduction="sum") / count, (distance * on_object).sum() / count


def detect(
    scores: Tensor, deltas: Tensor, boxes: Tensor, im_shape: Tensor, *, weights: Sequence[float]
) -> tuple[Tensor, Tensor, Tensor]:
    """The best instances of each picture.

    Args:
        scores: `[B, S, C]`, 0 for regions that are not in use; deltas: `[B, S, 4 C]` or `[B, S, 4]`.
        boxes: `[B, S, 4]`, the regions; im_shape: `[B, 2]`, what boxes are cut to.

    Returns boxes `[B, K, 4]`, scores `[B, K]`, labels `[B, K]`, best first; unused rows score 0.
    """
    _, regions, num_classes = scores.shape
    pairs = min(PAIRS, regions * num_classes)
    score, pair = paddle.topk(scores.flatten(1), pairs, axis=1)
    region, label = pair // num_classes, pair % num_classes
    delta = take(deltas.reshape([0, -1, 4]), pair if deltas.shape[2] > 4 else region)
    box = clip(decode(delta, take(boxes, region), weights=weights), im_shape)
    by_class = score.unsqueeze(1) * F.one_hot(label, num_classes).transpose([0, 2, 1])
    best = select(box, by_class, keep=DETECTIONS, threshold=SCORE_THRESHOLD, iou=OVERLAP, candidates=pairs)
    used = (best.scores > 0).astype(box.dtype).unsqueeze(-1)
    return take(box, best.index) * used, best.scores, best.labels


class MaskHead(nn.Layer):
    """Masks of regions: convolutions, doubling, one map a class.

    Args:
        convs: how many convolutions; without any, m is 14 instead of 28.
        strides: of the levels that regions are cut from.
    """

    def __init__(
        self, *, in_channels: int, num_classes: int, convs: int, channels: int, strides: Sequence[int]
    ) -> None:
        super().__init__()
        layers: list[tuple[str, nn.Layer]] = []
        for i in range(convs):
            attr = ParamAttr(initializer=KaimingNormal(fan_in=9 * channels))
            conv = nn.Conv2D(channels if i else in_channels, channels, 3, padding=1, weight_attr=attr)
            layers += [(f"mask_inter_feat_{i + 1}", conv), (f"relu_{i + 1}", nn.ReLU())]
        attr = ParamAttr(initializer=KaimingNormal(fan_in=4 * channels))
        double = nn.Conv2DTranspose(channels if convs else in_channels, channels, 2, stride=2, weight_attr=attr)
        layers += [("conv5_mask", double), ("relu", nn.ReLU())]
        self.head = nn.Layer()
        self.head.upsample = nn.Sequential(*layers)
        attr = ParamAttr(initializer=KaimingNormal(fan_in=num_classes))
        self.mask_fcn_logits = nn.Conv2D(channels, num_classes, 1, weight_attr=attr)
        self.num_classes = num_classes
        self.strides = tuple(strides)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """`[R, channels, m / 2, m / 2]` -> logits `[R, m, m]`, each of the region's own class."""
        x = self.head.upsample(x)
        # The last layer, for one class alone.
        weight = paddle.gather(self.mask_fcn_logits.weight.flatten(1), labels).unsqueeze(1)  # [R, 1, channels]
        bias = paddle.gather(self.mask_fcn_logits.bias, labels).reshape([-1, 1, 1])
        return (paddle.matmul(weight, x.flatten(2)) + bias).reshape([-1, *x.shape[2:]])

    def loss(
        self,
        levels: Sequence[Tensor],
        targets: Targets,
        bitmaps: Sequence[Tensor],
        *,
        shared: tuple[Tensor, Tensor] | None,
    ) -> Tensor:
        """Cross entropy of the masks of the targets that are on an object, averaged.

        Args:
            bitmaps: of each picture's objects, uint8 `[n, h, w]`.
            shared: features that the box head has computed already, `[R, channels, m / 2, m / 2]`, and which of the
                B * S targets they belong to; None: they are cut out of the levels.
        """
        positive = targets.used & (targets.labels < self.num_classes)
        if shared is None:
            x, index = region_features(
                levels, targets.boxes, at_least_one(positive), strides=self.strides, resolution=14
            )
        else:
            features, index = shared
            at = paddle.nonzero(rows(at_least_one(positive), index)).flatten()
            x, index = paddle.gather(features, at), paddle.gather(index, at)
        logits = self(x, rows(targets.labels, index).clip(max=self.num_classes - 1))
        goals = cut_masks(bitmaps, rows(targets.boxes, index), rows(targets.rows, index), side=logits.shape[2])
        each = F.binary_cross_entropy_with_logits(logits, goals, reduction="none").mean(axis=[1, 2])
        weight = rows(positive, index).astype(each.dtype)
        return (each * weight).sum() / over_processes(weight.sum())

    def predict(
        self, levels: Sequence[Tensor], boxes: Tensor, used: Tensor, labels: Tensor, *, through: nn.Layer | None
    ) -> Tensor:
        """Masks `[B, K, m + 2, m + 2]`, probability - 0.5, of the instances `boxes` `[B, K, 4]` that are `used`.

        Probabilities are what is enlarged to the picture, and outside of the box they are 0: hence one cell of that on
        each side.

        through: what the features cut out pass before this head, if anything.
        """
        x, index = region_features(levels, boxes, at_least_one(used), strides=self.strides, resolution=14)
        if through is not None:
            x = through(x)
        found = F.sigmoid(self(x, paddle.gather(labels.flatten(), index)))
        for axis in (1, 2):  # Not by oneDNN's pad, which writes beyond its memory.
            edge = paddle.zeros_like(found.sum(axis=axis, keepdim=True))
            found = paddle.concat([edge, found, edge], axis=axis)
        found = found.flatten(1)  # [R, (m + 2) ** 2]
        side = 2 * x.shape[2] + 2
        blank = paddle.zeros_like(boxes[..., :1]).expand([-1, -1, side * side]).flatten(0, 1)
        return paddle.scatter(blank, index, found).reshape([-1, boxes.shape[1], side, side]) - 0.5


def cut_masks(bitmaps: Sequence[Tensor], boxes: Tensor, which: Tensor, *, side: int) -> Tensor:
    """Parts of bitmaps, enlarged or shrunk to `side` pixels: `[R, side, side]`, 0 or 1.

    Args:
        bitmaps: uint8 `[n, h, w]` of each picture, of the size of the network input.
        boxes: `[R, 4]`, what is cut out; which: `[R]`, from which of all bitmaps.
    """
    height, width = bitmaps[0].shape[1:]
    pixels = paddle.concat([*(x.flatten() for x in bitmaps), paddle.zeros([1], "uint8")])
    steps = (paddle.arange(side, dtype="float32") + 0.5) / side
    low, high = boxes[:, None, :2], boxes[:, None, 2:]
    place = low + (high - low) * steps.reshape([1, -1, 1]) - 0.5  # [R, side, 2]
    place = paddle.minimum(place.clip(min=0.0), paddle.to_tensor([width - 1.0, height - 1.0]))
    near = place.floor()
    share = place - near
    near = near.astype("int64")
    far = paddle.minimum(near + 1, paddle.to_tensor([width - 1, height - 1]))

    def at(x: Tensor, y: Tensor) -> Tensor:
        index = (which.unsqueeze(1) * height + y).unsqueeze(2) * width + x.unsqueeze(1)
        # Without any object there is no bitmap: the last pixel stands in.
        return pixels[index.clip(max=len(pixels) - 1)].astype("float32")

    x, y = share[:, None, :, 0], share[:, :, None, 1]
    above = at(near[..., 0], near[..., 1]) * (1 - x) + at(far[..., 0], near[..., 1]) * x
    below = at(near[..., 0], far[..., 1]) * (1 - x) + at(far[..., 0], far[..., 1]) * x
    return (above * (1 - y) + below * y >= 0.5).astype("float32")
