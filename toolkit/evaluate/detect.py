"""Detections of a trained model over the pictures of a split."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

import numpy as np
import paddle
from numpy.typing import NDArray
from paddle import nn

from toolkit.data import detections
from toolkit.data.coco import Picture
from toolkit.data.detections import Detections, Floats, Network
from toolkit.data.joining import join
from toolkit.data.loader import EvalBatch
from toolkit.data.preprocess import Prepared
from toolkit.nn.low_precision import to_numpy
from toolkit.recipe import Tiling


def detect(
    model: nn.Layer, batches: Iterable[EvalBatch], *, limit: int = 100, tiling: Tiling | None = None
) -> Iterator[tuple[int, Detections]]:
    """Yield (picture id, detections) for every picture in `batches`, which come from `toolkit.data.loader`.

    Args:
        limit: how many detections of a picture, and of each of its tiles, are kept at most, the best by score.
        tiling: that by which the batches were made.
    """
    was_training = model.training
    model.eval()
    try:
        tiles = _found(model, batches, limit)
        if tiling is None:
            yield from ((picture.id, found) for picture, found in tiles)
            return
        for _, group in groupby(tiles, key=lambda tile: tile[0].id):
            pictures, found = zip(*group, strict=True)
            windows = [picture.window for picture in pictures]
            size = (pictures[0].height, pictures[0].width)
            yield pictures[0].id, join(found, windows, size, agreement=tiling.join).best(limit)
    finally:
        if was_training:
            model.train()


def _found(model: nn.Layer, batches: Iterable[EvalBatch], limit: int) -> Iterator[tuple[Picture, Detections]]:
    for batch in batches:
        pictures, prepared = zip(*batch, strict=True)
        yield from zip(pictures, detect_prepared(model, prepared, limit=limit), strict=True)


def detect_prepared(model: nn.Layer, pictures: Sequence[Prepared], *, limit: int | None = None) -> list[Detections]:
    """What `model`, which is in eval mode, finds in each of `pictures`."""
    return detections.detect(
        network_of(model), pictures, mask_frame=model.mask_frame, mask_clip=model.mask_clip, limit=limit
    )


def network_of(model: nn.Layer) -> Network:
    """`model`, which is in eval mode, over arrays."""

    def network(*inputs: Floats) -> list[NDArray[np.generic]]:
        with paddle.no_grad():
            return [to_numpy(output) for output in model.network(*map(paddle.to_tensor, inputs))]

    return network
