"""Detections of a trained model over the pictures of a split."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import paddle
from numpy.typing import NDArray
from paddle import nn

from toolkit.data import detections
from toolkit.data.detections import Detections, Floats
from toolkit.data.loader import EvalBatch
from toolkit.data.preprocess import Prepared


def detect(model: nn.Layer, batches: Iterable[EvalBatch], *, limit: int = 100) -> Iterator[tuple[int, Detections]]:
    """Yield (picture id, detections) for every picture in `batches`, which come from `toolkit.data.loader`."""
    was_training = model.training
    model.eval()
    try:
        for batch in batches:
            ids, pictures = zip(*batch, strict=True)
            yield from zip(ids, detect_prepared(model, pictures, limit=limit), strict=True)
    finally:
        if was_training:
            model.train()


def detect_prepared(model: nn.Layer, pictures: Sequence[Prepared], *, limit: int | None = None) -> list[Detections]:
    """What `model`, which is in eval mode, finds in each of `pictures`."""

    def network(image: Floats, im_shape: Floats) -> list[NDArray[np.generic]]:
        with paddle.no_grad():
            return [output.numpy() for output in model.network(paddle.to_tensor(image), paddle.to_tensor(im_shape))]

    return detections.detect(network, pictures, mask_frame=model.mask_frame, mask_clip=model.mask_clip, limit=limit)
