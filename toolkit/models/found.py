"""What the models return in eval mode, where it is alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import paddle
from paddle import Tensor

from toolkit.data.detections import Detections, place
from toolkit.data.masks import full


def original_size(batch: dict[str, Any]) -> tuple[int, int]:
    """Height and width that all pictures of `batch` had: `orig_size` where it has it, else `im_shape` over
    `scale_factor`."""
    sizes = batch.get("orig_size")
    if sizes is None:
        sizes = (batch["im_shape"] / batch["scale_factor"]).round()
    return int(sizes[0][0]), int(sizes[0][1])


@paddle.no_grad()
def found_in(
    batch: dict[str, Any], network: Callable[[Tensor, Tensor], Sequence[Tensor]], *, mask_frame: str = "image"
) -> list[Detections]:
    """What `network` finds in each picture of `batch`, on the picture; see `place`."""
    image, size = batch["image"], original_size(batch)
    outputs = [output.numpy() for output in network(image, batch["im_shape"].astype("float32"))]
    return [
        place(
            *rows,
            size=size,
            network_size=(image.shape[2], image.shape[3]),
            scale=(scale[0], scale[1]),
            mask_frame=mask_frame,
        )
        for *rows, scale in zip(*outputs, batch["scale_factor"].numpy(), strict=True)
    ]


def as_tensors(found: Sequence[Detections]) -> dict[str, Tensor]:
    """Pictures of one size H x W, one after another: `bbox` `[N, 6]` (class, score, x1 y1 x2 y2), `bbox_num` int32
    `[B]` and `mask` uint8 `[N, H, W]`."""
    size = found[0].size
    rows = np.concatenate([np.c_[picture.labels, picture.scores, picture.boxes] for picture in found])
    masks = [full(crop, size) for picture in found for crop in picture.masks]
    return {
        "bbox": paddle.to_tensor(rows.astype("float32")),
        "bbox_num": paddle.to_tensor([len(picture) for picture in found], dtype="int32"),
        "mask": paddle.to_tensor(np.array(masks, "uint8").reshape([-1, *size])),
    }
