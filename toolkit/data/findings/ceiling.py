"""What a model can make of a dataset at best: its input has a size, and its masks a grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from toolkit.data.findings.file import File
from toolkit.data.findings.geometry import polygons_of
from toolkit.data.findings.looks import spread
from toolkit.data.findings.record import Findings
from toolkit.data.masks import Bitmap, full, paste, segmentation_to_mask
from toolkit.data.preprocess import resized, steps_of
from toolkit.recipe import Recipe
from toolkit.zoo import find_model

MOST = 1000
"""Instances that the ceiling is measured on, evenly spread."""
THRESHOLDS = np.arange(0.5, 1.0, 0.05)
LEAST_PIXELS = 4
"""Of the network input; training leaves smaller instances out."""


@dataclass(frozen=True)
class Grid:
    """The cells that masks consist of before they are enlarged."""

    frame: Literal["image", "box"]
    """What the grid covers: the network input, or the instance's box."""
    size: int
    """Pixels of the network input a cell, or cells a side of the box."""
    clip: bool = False
    """Masks end at their box."""


GRIDS = {
    "mask_rtdetr": Grid("image", 4),
    "ppyoloe_seg": Grid("image", 4, clip=True),
    "solov2": Grid("image", 4),
    "mask_rcnn": Grid("box", 28),
    "cascade_mask_rcnn": Grid("box", 28),
    "MaskRCNN-ResNet50": Grid("box", 14),
}


@dataclass(frozen=True)
class Ceiling:
    """Mask AP of a model that finds every instance and gets every cell of its grid right."""

    model: str
    split: str
    ap: float
    """0 to 1."""
    iou: float
    """Mean over the instances."""
    measured: int
    instances: int
    """Instances that were measured, and that there are."""


def grid_of(model: str) -> Grid:
    """The mask grid of a model of the zoo."""
    return GRIDS.get(model) or GRIDS[find_model(model).family]


def mask_ceiling(file: File, recipe: Recipe) -> Ceiling | None:
    """The best mask AP that grid and input size of a recipe's model allow on a file; None without instances.

    Each mask is put on the grid as well as two ways of doing so allow (distance to the outline, and share of the cell),
    enlarged as predictions are, and compared with itself. AP is COCO's, with a detection for each instance, those with
    the best masks first.
    """
    rows = np.flatnonzero(~file.empty & ~file.crowd & (file.category >= 0)).tolist()
    chosen = spread(rows, MOST)
    if not chosen:
        return None
    grid, step = grid_of(recipe.model.name), steps_of(recipe.data)[0]
    overlaps = np.array([_overlap(file, row, grid, step) for row in chosen])
    categories = file.category[chosen]
    found = [(overlaps[categories == c][:, None] >= THRESHOLDS).mean(0) for c in np.unique(categories)]
    # The precision is 1 up to the recall that is reached; COCO looks at 101 recalls.
    aps = np.where(np.array(found) > 0, (np.floor(np.array(found) * 100 + 1e-9) + 1) / 101, 0.0)
    return Ceiling(recipe.model.name, file.split, float(aps.mean()), float(overlaps.mean()), len(chosen), len(rows))


def check_sizes_for(file: File, recipe: Recipe, findings: Findings) -> None:
    """Rules on instances that are too small for a recipe's model."""
    step, grid = steps_of(recipe.data)[0], grid_of(recipe.model.name)
    scale = np.ones(len(file.frame))
    for size in np.unique(file.frame[(file.frame > 0).all(1)], axis=0):
        height, width = resized((int(size[0]), int(size[1])), step)
        scale[(file.frame == size).all(1)] = height * width / float(size.prod())
    rows = np.flatnonzero(~file.empty & ~file.crowd & (file.category >= 0))
    pixels = file.area[rows] * scale[file.image[rows]]
    gone = pixels < LEAST_PIXELS
    values: dict[str, Any] = {"key": "segmentation", "model": recipe.model.name}
    place = file, "annotations"
    findings.add("instance-dropped", *place, rows[gone], pixels=pixels[gone], least=LEAST_PIXELS, **values)
    rough = ~gone & (pixels < grid.size**2) & (grid.frame == "image")
    findings.add("instance-below-grid", *place, rows[rough], pixels=pixels[rough], **values)


def mask_of(file: File, row: int) -> Bitmap:
    """The mask of annotation `row`, in its frame."""
    assert file.outlines is not None
    height, width = file.frame[file.image[row]].tolist()
    rle = file.outlines.rles.get(row)
    return segmentation_to_mask(dict(rle) if rle else polygons_of(file.outlines, row), (height, width))


def _overlap(file: File, row: int, grid: Grid, step: dict[str, Any]) -> float:
    """IoU of a mask with what the grid leaves of it."""
    height, width = file.frame[file.image[row]].tolist()
    mask = mask_of(file, row)
    x1, y1, x2, y2 = file.box[row].tolist()
    if grid.frame == "image":
        network = resized((height, width), step)
        cell = grid.size * width / network[1], grid.size * height / network[0]
        # As many cells as the box reaches into, and some around it.
        low = np.floor([x1 / cell[0], y1 / cell[1]]).astype(int) - 2
        high = np.ceil([x2 / cell[0], y2 / cell[1]]).astype(int) + 2
        low = low.clip(0)
        high = np.minimum(high, [int(np.ceil(network[1] / grid.size)), int(np.ceil(network[0] / grid.size))])
        corner = low[0] * cell[0], low[1] * cell[1]
        count = int(high[0] - low[0]), int(high[1] - low[1])
    else:
        cell = max(x2 - x1, 1.0) / grid.size, max(y2 - y1, 1.0) / grid.size
        # A cell more on each side, as in data/detections.py.
        corner, count = (x1 - cell[0], y1 - cell[1]), (grid.size + 2, grid.size + 2)
    clip = (x1, y1, x2, y2) if grid.clip else None
    return max(
        _iou(mask, paste(logits, size=(height, width), frame=_frame(corner, cell, count), clip=clip))
        for logits in (_sampled(field, corner, cell, count) for field in _fields(mask, cell))
    )


def _frame(corner: tuple[float, float], cell: tuple[float, float], count: tuple[int, int]) -> Any:
    return *corner, corner[0] + count[0] * cell[0], corner[1] + count[1] * cell[1]


def _fields(mask: Bitmap, cell: tuple[float, float]) -> list[NDArray[np.float32]]:
    """What logits can be read off from: the distance to the outline, and the share of the mask around each pixel."""
    inside = cv2.distanceTransform(mask, cv2.DIST_L2, 5)
    outside = cv2.distanceTransform(1 - mask, cv2.DIST_L2, 5)
    distance = np.where(mask > 0, inside - 0.5, 0.5 - outside).astype(np.float32)
    around = tuple(max(1, round(side)) for side in cell)
    share = cv2.blur(mask.astype(np.float32), (around[0], around[1]), borderType=cv2.BORDER_REPLICATE)
    return [distance, (share - 0.5).astype(np.float32)]


def _sampled(
    field: NDArray[np.float32], corner: tuple[float, float], cell: tuple[float, float], count: tuple[int, int]
) -> NDArray[np.float32]:
    """The field at the centres of the cells, `[rows, columns]`."""
    x, y = (corner[i] + (np.arange(count[i]) + 0.5) * cell[i] - 0.5 for i in (0, 1))
    columns, rows = np.meshgrid(x.astype(np.float32), y.astype(np.float32))
    sampled = cv2.remap(field, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.ascontiguousarray(sampled, np.float32)


def _iou(mask: Bitmap, crop: Any) -> float:
    other = full(crop, mask.shape)
    union = cv2.countNonZero(mask | other)
    return cv2.countNonZero(mask & other) / union if union else 1.0
