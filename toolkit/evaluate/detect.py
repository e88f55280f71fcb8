"""Detections of a trained model over the pictures of a split."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import paddle
from paddle import nn

from toolkit.data.detections import Detections, place


def detect(
    model: nn.Layer, batches: Iterable[dict[str, Any]], *, limit: int = 100, threshold: float = 0.0
) -> Iterator[tuple[int, Detections]]:
    """Yield (picture id, detections) for every picture in `batches`, which come from `toolkit.data.loader`."""
    was_training = model.training
    model.eval()
    try:
        for batch in batches:
            with paddle.no_grad():
                image = paddle.to_tensor(batch["image"])
                boxes, scores, labels, logits = (output.numpy() for output in model.network(image))
            for row, picture_id in enumerate(batch["image_ids"]):
                height, width = (int(side) for side in batch["orig_size"][row])
                yield (
                    picture_id,
                    place(
                        boxes[row],
                        scores[row],
                        labels[row],
                        logits[row],
                        size=(height, width),
                        network_size=(image.shape[2], image.shape[3]),
                        scale=tuple(batch["scale_factor"][row]),
                        mask_frame=getattr(model, "mask_frame", "image"),
                        mask_clip=getattr(model, "mask_clip", False),
                        threshold=threshold,
                        limit=limit,
                    ),
                )
    finally:
        if was_training:
            model.train()
