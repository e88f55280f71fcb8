"""Mask R-CNN (He et al. 2017), on a feature pyramid (Lin et al. 2017) or on the maps of res4 alone ("C4").

    image -> backbone (-> pyramid) -> proposals -> class and box of each -> mask of each instance

Legend: B pictures, S regions or K instances of a picture, R regions at work, C classes, m side of a mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from toolkit.errors import UserError
from toolkit.models.base import InstanceSegmentationModel
from toolkit.nn.fpn import FPN
from toolkit.nn.resnet import ResNet, Stage
from toolkit.nn.roi_heads import (
    MaskHead,
    TwoLayers,
    at_least_one,
    box_losses,
    delta_layer,
    detect,
    in_order,
    region_features,
    score_layer,
)
from toolkit.nn.rpn import RPN
from toolkit.nn.sampling import Objects, Targets, sampled, targets_of
from toolkit.nn.shape import size_of

BACKBONES: dict[str, dict[str, Any]] = {
    "MaskRCNN-ResNet50": {},
    "MaskRCNN-ResNet50-FPN": {},
    "MaskRCNN-ResNet50-vd-FPN": {"vd": True},
    "MaskRCNN-ResNet50-vd-SSLDv2-FPN": {"vd": True},
    "MaskRCNN-ResNet101-FPN": {"depth": 101},
    "MaskRCNN-ResNet101-vd-FPN": {"depth": 101, "vd": True},
    "MaskRCNN-ResNeXt101-vd-FPN": {"depth": 101, "vd": True, "groups": 64, "group_width": 4},
}

WEIGHTS = (10.0, 10.0, 5.0, 5.0)
"""Of the changes of boxes that the box head predicts, see `encode`."""

STRIDES = (4, 8, 16, 32)
"""Levels of the pyramid that regions are cut from."""

TINY: dict[str, Any] = {
    "depth": 18,
    "width": 8,
    "pyramid_channels": 32,
    "box_channels": 128,
    "mask_convs": 1,
    "mask_channels": 32,
    "regions": 64,
}
"""Overrides for a variant that trains on a CPU in a fraction of a second a step."""


def build(
    name: str,
    *,
    num_classes: int,
    input_size: tuple[int, int] | None = None,
    depth: int | None = None,
    width: int = 64,
    pyramid_channels: int = 256,
    box_channels: int = 1024,
    mask_convs: int = 4,
    mask_channels: int = 256,
    regions: int = 512,
    sampling: str = "random",
    freeze: bool = True,
) -> MaskRCNN:
    """Build the model `name` of `BACKBONES`; with a pyramid it takes any input whose sides are multiples of 32.

    Args:
        depth, width, freeze: of the backbone, see `ResNet`.
        pyramid_channels, box_channels, mask_convs, mask_channels: sizes of the other parts; the C4 model has no
            pyramid, no convolutions in its mask head, and res5 for a box head.
        regions: of each picture that the heads learn from at most.
        sampling: `random`, or `first` to learn from the anchors and regions with the lowest index.

    Raises UserError for an `input_size` that the pyramid does not take.
    """
    backbone = {**BACKBONES[name], "width": width, "freeze": freeze}
    if depth is not None:
        backbone["depth"] = depth
    if name == "MaskRCNN-ResNet50":
        return c4(
            num_classes=num_classes,
            backbone=backbone,
            mask_channels=mask_channels,
            regions=regions,
            sampling=sampling,
        )
    parts = pyramid_parts(
        name,
        input_size,
        num_classes=num_classes,
        backbone=backbone,
        channels=pyramid_channels,
        mask_convs=mask_convs,
        mask_channels=mask_channels,
        regions=regions,
        sampling=sampling,
    )
    head = BoxHead(
        TwoLayers(in_channels=pyramid_channels, width=box_channels),
        strides=STRIDES,
        resolution=7,
        width=box_channels,
        num_classes=num_classes,
    )
    return MaskRCNN(**parts, bbox_head=head, train_proposals=(2000, 1000), test_proposals=(1000, 1000))


def pyramid_parts(
    name: str,
    input_size: tuple[int, int] | None,
    *,
    num_classes: int,
    backbone: dict[str, Any],
    channels: int,
    mask_convs: int,
    mask_channels: int,
    regions: int,
    sampling: str,
) -> dict[str, Any]:
    """Everything but the box head, for `MaskRCNN`; see `build`."""
    if input_size and any(side % 32 for side in input_size):
        raise UserError(f"{name}: data.input_size {list(input_size)}: both sides must be multiples of 32")
    body = ResNet(**backbone)
    return {
        "num_classes": num_classes,
        "backbone": body,
        "neck": FPN(in_channels=body.out_channels, out_channels=channels),
        "rpn_head": RPN(in_channels=channels, sampling=sampling),
        "mask_head": MaskHead(
            in_channels=channels,
            num_classes=num_classes,
            convs=mask_convs,
            channels=mask_channels,
            strides=STRIDES,
        ),
        "regions": regions,
        "sampling": sampling,
    }


def c4(*, num_classes: int, backbone: dict[str, Any], mask_channels: int, regions: int, sampling: str) -> MaskRCNN:
    """The variant without a pyramid: regions are cut out of res4, and res5 runs on each of them."""
    body = ResNet(**backbone, stages=(4,))
    (channels,) = body.out_channels
    res5 = Res5(in_channels=channels, depth=backbone.get("depth", 50), freeze=backbone["freeze"])
    return MaskRCNN(
        num_classes=num_classes,
        backbone=body,
        neck=None,
        rpn_head=RPN(in_channels=channels, strides=(16,), sizes=((32, 64, 128, 256, 512),), sampling=sampling),
        bbox_head=BoxHead(res5, strides=(16,), resolution=14, width=res5.out_channels, num_classes=num_classes),
        mask_head=MaskHead(
            in_channels=res5.out_channels, num_classes=num_classes, convs=0, channels=mask_channels, strides=(16,)
        ),
        train_proposals=(12000, 2000),
        test_proposals=(6000, 1000),
        regions=regions,
        sampling=sampling,
    )


class MaskRCNN(InstanceSegmentationModel):
    """The parts put together.

    Args:
        backbone: image -> feature maps; neck: feature maps -> levels of the pyramid, or None.
        rpn_head: levels -> proposals.
        bbox_head: levels, proposals -> instances; `BoxHead` or one with the same methods.
        mask_head: levels, instances -> masks.
        train_proposals, test_proposals: how many anchors of each level take part, and how many proposals remain.
        regions, sampling: see `build`.
    """

    mask_frame = "box"

    def __init__(
        self,
        *,
        num_classes: int,
        backbone: nn.Layer,
        neck: nn.Layer | None,
        rpn_head: RPN,
        bbox_head: nn.Layer,
        mask_head: MaskHead,
        train_proposals: tuple[int, int],
        test_proposals: tuple[int, int],
        regions: int,
        sampling: str,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.backbone = backbone
        self.neck = neck
        self.rpn_head = rpn_head
        self.bbox_head = bbox_head
        self.mask_head = mask_head
        self.train_proposals = train_proposals
        self.test_proposals = test_proposals
        self.regions = regions
        self.sampling = sampling

    def losses(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """`loss`, the sum, and its parts: `loss_rpn_cls`, `loss_rpn_reg`, those of the box head, `loss_mask`.

        batch: `image` `[B, 3, h, w]`, `im_shape` `[B, 2]` (height and width of the pictures inside it), and one entry
            a picture of `gt_class` `[n]`, `gt_bbox` `[n, 4]` (x1 y1 x2 y2 in pixels of the input) and `gt_mask` uint8
            `[n, h, w]`; n may be 0.
        """
        im_shape = batch["im_shape"].astype("float32")
        objects = Objects.of(batch)
        levels = self._levels(batch["image"])
        candidates, keep = self.train_proposals
        boxes, scores = self.rpn_head(levels, im_shape, candidates=candidates, keep=keep)
        # Proposals are poor at first: the objects' own boxes are learnt from as well.
        boxes = paddle.concat([boxes, objects.boxes], axis=1)
        exist = paddle.concat([scores > 0, objects.present], axis=1)
        targets = targets_of(boxes, exist, objects, overlap=0.5, num_classes=self.num_classes)
        targets = sampled(
            targets,
            count=self.regions,
            most_positive=self.regions // 4,
            num_classes=self.num_classes,
            how=self.sampling,
        )
        parts = self.rpn_head.losses(levels, objects)
        box_parts, shared = self.bbox_head.losses(levels, targets, objects, im_shape)
        parts.update(box_parts)
        if shared is not None and self.sampling == "first":
            # In the reference, whose figures `first` is there to reproduce, the C4 model takes the features for every
            # picture's masks from the first picture.
            features, index = shared
            shared = paddle.gather(features, index % targets.used.shape[1]), index
        parts["loss_mask"] = self.mask_head.loss(levels, targets, batch["gt_mask"], shared=shared)
        return {"loss": sum(parts.values()), **parts}

    def network(
        self, image: Tensor, im_shape: Tensor | None = None, threshold: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The part that exports: the best K instances of each picture, best first; unused rows score 0.

        Args:
            image: `[B, 3, h, w]`, sides multiples of 32 for a pyramid.
            im_shape: `[B, 2]`, height and width of the pictures inside the padded input; by default all of it.
            threshold: `[1]`; rows that score less have no masks.

        Returns boxes `[B, K, 4]` (x1 y1 x2 y2 in pixels of the input), scores `[B, K]`, labels int64 `[B, K]` and masks
        `[B, K, m + 2, m + 2]`, positive inside after bilinear resizing. A mask covers its box and one cell more on each
        side.
        """
        if im_shape is None:
            size = [paddle.full_like(image[:, 0, :1, :1].flatten(1), 1.0) * size_of(image, i) for i in (2, 3)]
            im_shape = paddle.concat(size, axis=1)
        levels = self._levels(image)
        candidates, keep = self.test_proposals
        boxes, scores = self.rpn_head(levels, im_shape, candidates=candidates, keep=keep)
        boxes, scores, labels = self.bbox_head.predict(levels, boxes, scores > 0, im_shape)
        used = scores > 0 if threshold is None else (scores > 0) & (scores >= threshold)
        through = None if self.neck is not None else self.bbox_head.head
        masks = self.mask_head.predict(levels, boxes, used, labels, through=through)
        return boxes, scores, labels, masks

    def _levels(self, image: Tensor) -> list[Tensor]:
        maps: list[Tensor] = self.backbone(image)
        return maps if self.neck is None else self.neck(maps)


class BoxHead(nn.Layer):
    """Class and box of each region.

    Args:
        head: cut out features -> features; where it returns maps, their mean counts.
        strides, resolution: of what is cut out, see `region_features`.
        width: channels that `head` returns.
    """

    def __init__(
        self, head: nn.Layer, *, strides: Sequence[int], resolution: int, width: int, num_classes: int
    ) -> None:
        super().__init__()
        self.head = head
        self.bbox_score = score_layer(width, num_classes)
        self.bbox_delta = delta_layer(width, num_classes)
        self.strides = tuple(strides)
        self.resolution = resolution

    def losses(
        self, levels: Sequence[Tensor], targets: Targets, objects: Objects, im_shape: Tensor
    ) -> tuple[dict[str, Tensor], tuple[Tensor, Tensor] | None]:
        """Losses of the sampled regions; and the maps that `head` returns for them, if it does, with their places among
        the targets, for a mask head that goes on from there."""
        logits, deltas, features, index = self._run(levels, targets.boxes, at_least_one(targets.used))
        classes, boxes = box_losses(logits, deltas, targets, index, weights=WEIGHTS)
        shared = (features, index) if features.ndim == 4 else None
        return {"loss_bbox_cls": classes, "loss_bbox_reg": boxes}, shared

    def predict(
        self, levels: Sequence[Tensor], boxes: Tensor, exist: Tensor, im_shape: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Instances among the regions `boxes` `[B, S, 4]` that `exist`, see `toolkit.nn.roi_heads.detect`."""
        logits, deltas, _, index = self._run(levels, boxes, paddle.ones_like(exist))
        scores = F.softmax(in_order(logits, index, boxes))[..., :-1] * exist.astype(logits.dtype).unsqueeze(-1)
        return detect(scores, in_order(deltas, index, boxes), boxes, im_shape, weights=WEIGHTS)

    def _run(self, levels: Sequence[Tensor], boxes: Tensor, used: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        cut, index = region_features(levels, boxes, used, strides=self.strides, resolution=self.resolution)
        features = self.head(cut)
        vector = features.mean([2, 3]) if features.ndim == 4 else features
        return self.bbox_score(vector), self.bbox_delta(vector), features, index


class Res5(nn.Layer):
    """The last stage of a ResNet, run on regions: `[R, channels, 14, 14]` -> `[R, 2 channels, 7, 7]`."""

    def __init__(self, *, in_channels: int, depth: int, freeze: bool) -> None:
        super().__init__()
        bottleneck = depth > 18
        self.res5 = Stage(
            number=5,
            in_channels=in_channels,
            channels=in_channels // 2 if bottleneck else in_channels * 2,
            blocks=3 if bottleneck else 2,
            bottleneck=bottleneck,
            freeze=freeze,
        )
        self.out_channels = self.res5.out_channels

    def forward(self, x: Tensor) -> Tensor:
        return self.res5(x)
