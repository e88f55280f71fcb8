"""From what a network returns to instances on the picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.data.masks import Box, Crop, crop_to_rle, paste
from toolkit.data.preprocess import Prepared
from toolkit.stages import stage

Floats = NDArray[np.float32]
Network = Callable[[Floats, Floats, Floats], Sequence[NDArray[Any]]]
"""Image `[B, 3, h, w]`, im_shape `[B, 2]` (height and width of the pictures inside it) and threshold `[1]` (rows that
score less may be left out, or have no masks) -> boxes `[B, K, 4]`, scores `[B, K]`, labels `[B, K]`, mask logits
`[B, K, mh, mw]`; see `place`."""


@dataclass(frozen=True)
class Detections:
    """The instances found in one picture, best first."""

    boxes: NDArray[np.floating[Any]]
    """`[n, 4]`, x1 y1 x2 y2 in pixels of the picture, inside it."""
    scores: NDArray[np.floating[Any]]
    """`[n]`, 0 to 1."""
    labels: NDArray[np.int64]
    """`[n]`, indices in the list of classes."""
    masks: list[Crop]
    size: tuple[int, int]
    """Height and width of the picture."""

    def __len__(self) -> int:
        return len(self.scores)

    def kept(self, rows: NDArray[np.bool_]) -> Detections:
        """Those of which `rows` `[n]` is true."""
        masks = [mask for mask, keep in zip(self.masks, rows.tolist(), strict=True) if keep]
        return Detections(self.boxes[rows], self.scores[rows], self.labels[rows], masks, self.size)

    def above(self, threshold: float) -> Detections:
        """Those with at least this score."""
        return self.best(int((self.scores >= threshold).sum()))

    def best(self, n: int) -> Detections:
        """The first `n`."""
        return Detections(self.boxes[:n], self.scores[:n], self.labels[:n], self.masks[:n], self.size)


def coco_results(picture_id: int, found: Detections, category_ids: Sequence[int]) -> Iterator[dict[str, Any]]:
    """The entries of a COCO results list; `category_ids` are the data's, in label order."""
    x1, y1, x2, y2 = found.boxes.T.astype(float)
    sides = np.stack([x1, y1, x2 - x1, y2 - y1], axis=1)
    for box, score, label, mask in zip(
        sides.tolist(), found.scores.tolist(), found.labels.tolist(), found.masks, strict=True
    ):
        yield {
            "image_id": picture_id,
            "category_id": category_ids[label],
            "bbox": box,
            "score": score,
            "segmentation": crop_to_rle(mask, found.size),
        }


def detect(
    network: Network,
    pictures: Sequence[Prepared],
    *,
    mask_frame: str,
    mask_clip: bool,
    threshold: float = 0.0,
    limit: int | None = None,
    at_once: int | None = None,
) -> list[Detections]:
    """The instances of each picture.

    Pictures of one size go through the network together, `at_once` of them at most. Those of different sizes do not:
    filled up to the largest they would be seen otherwise than alone, and what is found would depend on the company.

    For the other arguments see `place`.
    """
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for row, picture in enumerate(pictures):
        by_shape.setdefault(picture.image.shape, []).append(row)
    found: dict[int, Detections] = {}
    for same in by_shape.values():
        step = at_once or len(same)
        for rows in (same[i : i + step] for i in range(0, len(same), step)):
            image = np.stack([pictures[row].image for row in rows])
            with stage("network"):
                im_shape = np.array([pictures[row].im_shape for row in rows], np.float32)
                outputs = network(image, im_shape, np.array([threshold], np.float32))
            with stage("masks"):
                for i, row in enumerate(rows):
                    found[row] = place(
                        *(output[i] for output in outputs),
                        size=pictures[row].size,
                        network_size=(image.shape[2], image.shape[3]),
                        scale=pictures[row].scale_factor,
                        mask_frame=mask_frame,
                        mask_clip=mask_clip,
                        threshold=threshold,
                        limit=limit,
                    )
    return [found[row] for row in range(len(pictures))]


def place(
    boxes: Floats,
    scores: Floats,
    labels: NDArray[np.integer],
    logits: Floats,
    *,
    size: tuple[int, int],
    network_size: tuple[int, int],
    scale: tuple[float, float],
    mask_frame: str = "image",
    mask_clip: bool = False,
    threshold: float = 0.0,
    limit: int | None = None,
) -> Detections:
    """Carry one picture's rows over from the network input to the picture.

    Args:
        boxes: `[k, 4]`, x1 y1 x2 y2 in pixels of the network input; scores, labels: `[k]`, best first.
        logits: `[k, mh, mw]`, positive inside the mask. They cover the network input (`mask_frame` "image"), or the
            box and one cell more on each side ("box").
        size: height and width of the picture; `network_size`: those of the network input, padding included.
        scale: network pixels per picture pixel, y and x.
        mask_clip: cut masks to their box.
        threshold: least score; rows with score 0 are padding and never pass.
        limit: how many rows are kept at most.
    """
    kept = np.flatnonzero((scores >= threshold) & (scores > 0))[:limit]
    scale_y, scale_x = (float(s) for s in scale)
    picture = boxes[kept].astype(np.float64) / (scale_x, scale_y, scale_x, scale_y)
    inside = picture.clip(0, (size[1], size[0], size[1], size[0])).astype(np.float32)
    whole = (0.0, 0.0, _snap(network_size[1] / scale_x), _snap(network_size[0] / scale_y))
    masks = [
        paste(
            logits[row],
            size=size,
            frame=whole if mask_frame == "image" else _around(box, *logits.shape[1:]),
            clip=tuple(cut) if mask_clip else None,
        )
        for row, box, cut in zip(kept, picture.tolist(), inside.tolist(), strict=True)
    ]
    return Detections(inside, scores[kept].astype(np.float32), labels[kept].astype(np.int64), masks, size)


def _around(box: list[float], rows: int, columns: int) -> Box:
    x1, y1, x2, y2 = box
    cell_x, cell_y = (x2 - x1) / (columns - 2), (y2 - y1) / (rows - 2)
    return x1 - cell_x, y1 - cell_y, x2 + cell_x, y2 + cell_y


def _snap(side: float) -> float:
    # scale = network / picture is a rounded float32: without this, 427 comes back as 426.99998.
    return float(round(side)) if abs(side - round(side)) < 1e-3 else side
