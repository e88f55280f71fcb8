"""What all models share: losses in train mode, instances in eval mode."""

from __future__ import annotations

from typing import Any

import numpy as np
import paddle
from paddle import Tensor, nn

from toolkit.data.detections import place
from toolkit.data.masks import full


class InstanceSegmentationModel(nn.Layer):
    """Base class of the models.

    A subclass gives `losses` and `network`, and says what its mask logits cover; training, evaluation, export and the
    service need nothing else. `model(batch)` is the losses in train mode, and the instances at the images' original
    size in eval mode.
    """

    mask_frame = "image"
    """What mask logits cover, see `toolkit.data.detections.place`: the network input ("image") or each box ("box")."""
    mask_clip = False
    """Whether masks are cut to their box."""

    def losses(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """`loss`, the weighted sum, and its parts by name.

        batch: `image` float32 `[B, 3, h, w]`, `im_shape` `[B, 2]` (height and width of the images inside it), and one
            entry an image of `gt_class` int64 `[n]`, `gt_bbox` float32 `[n, 4]` (x1 y1 x2 y2 in pixels of the input)
            and `gt_mask` uint8 `[n, h, w]`; n may be 0.
        """
        raise NotImplementedError

    def network(
        self, image: Tensor, im_shape: Tensor | None = None, threshold: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The part that exports: the best K instances of each image, best first; unused rows score 0.

        Args:
            image: `[B, 3, h, w]`.
            im_shape: `[B, 2]`, height and width of the images inside the padded input; by default all of it.
            threshold: `[1]`; rows that score less may be left out, or have no masks.

        Returns:
            boxes `[B, K, 4]` (x1 y1 x2 y2 in pixels of the input), scores `[B, K]`, labels int64 `[B, K]` and mask
            logits `[B, K, mh, mw]`, positive inside after bilinear resizing.
        """
        raise NotImplementedError

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """See `losses` and `instances`."""
        return self.losses(batch) if self.training else self.instances(batch)

    @paddle.no_grad()
    def instances(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The instances in `batch`, image after image, best first.

        batch: `image` and `im_shape` as for `losses`, and `scale_factor` `[B, 2]` (network input pixels per image
            pixel, y then x). All images must have one original size H x W, `im_shape` over `scale_factor`.

        Returns:
            `bbox` float32 `[N, 6]` (class, score, x1 y1 x2 y2 in pixels of the original image, not clipped to it),
            `bbox_num` int32 `[B]` and `mask` uint8 `[N, H, W]`.
        """
        image, im_shape = batch["image"], batch["im_shape"].astype("float32")
        scales = batch["scale_factor"].numpy()
        height, width = (round(float(side)) for side in im_shape.numpy()[0] / scales[0])
        rows, masks, counts = [np.zeros((0, 6))], [], []
        outputs = [output.numpy() for output in self.network(image, im_shape)]
        for boxes, scores, labels, logits, (scale_y, scale_x) in zip(*outputs, scales, strict=True):
            placed = place(
                boxes,
                scores,
                labels,
                logits,
                size=(height, width),
                network_size=(image.shape[2], image.shape[3]),
                scale=(scale_y, scale_x),
                mask_frame=self.mask_frame,
                mask_clip=self.mask_clip,
            )
            unclipped = boxes[scores > 0] / (scale_x, scale_y, scale_x, scale_y)
            rows.append(np.c_[placed.labels, placed.scores, unclipped])
            masks += [full(mask, placed.size) for mask in placed.masks]
            counts.append(len(placed))
        return {
            "bbox": paddle.to_tensor(np.concatenate(rows).astype("float32")),
            "bbox_num": paddle.to_tensor(counts, dtype="int32"),
            "mask": paddle.to_tensor(np.array(masks, "uint8").reshape([-1, height, width])),
        }
