"""Detections beside annotations, picture by picture, in a few columns: all that evaluation keeps of either.

Masks are gone once their overlaps are known, so memory grows by some tens of bytes a detection.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as codec

from toolkit.data.coco import Picture
from toolkit.data.detections import Detections
from toolkit.data.masks import crop_area, segmentation_to_crop
from toolkit.errors import UserError
from toolkit.evaluate.overlap import Bools, Floats, Ints, Pairs, boundary_pairs, mask_pairs

FILE = "evaluate_tables.npz"
"""What an evaluation keeps for comparisons."""

Kind = Literal["mask", "box", "boundary"]
KINDS: tuple[Kind, ...] = ("mask", "box", "boundary")

SAME = 0.5
"""The least IoU that AP looks at, and of pairs of one class that are kept."""
NEAR = 0.1
"""The same for explanations, and of pairs of different classes too."""


@dataclass(frozen=True)
class Tables:
    """Of N pictures, D detections (picture by picture, each's best first) and G annotations."""

    picture_ids: Ints
    """`[N]`, ascending once joined."""
    picture: Ints
    """`[D]`, index of the picture; `truth_picture` `[G]` likewise."""
    label: Ints
    score: Floats
    mask_area: Floats
    box_area: Floats
    truth_picture: Ints
    truth_label: Ints
    truth_area: Floats
    """As the data says it."""
    truth_crowd: Bools
    mask: Pairs
    box: Pairs
    boundary: Pairs
    """Empty where nobody asked for it."""

    def pairs(self, kind: Kind) -> Pairs:
        return {"mask": self.mask, "box": self.box, "boundary": self.boundary}[kind]

    def area(self, kind: Kind) -> Floats:
        return self.box_area if kind == "box" else self.mask_area

    def shown(self, classes: int) -> Bools:
        """`[N, K]`, whether a picture has objects of a class, crowd regions aside."""
        shown = np.zeros((len(self.picture_ids), classes), np.bool_)
        shown[self.truth_picture[~self.truth_crowd], self.truth_label[~self.truth_crowd]] = True
        return shown

    def same_class(self, kind: Kind) -> Pairs:
        """The pairs that AP looks at."""
        pairs = self.pairs(kind)
        return pairs.where((self.label[pairs.found] == self.truth_label[pairs.truth]) & (pairs.iou >= SAME))


def tabulate(picture: Picture, found: Detections, *, thorough: bool = False) -> Tables:
    """The tables of one picture.

    Args:
        thorough: keep pairs of different classes and from `NEAR` on too, and those of boundaries.
    """
    order = np.argsort(-found.scores, kind="stable")
    scores, labels = found.scores[order].astype(np.float64), found.labels[order].astype(np.int64)
    corners = found.boxes[order].astype(np.float64).reshape(-1, 4)
    masks = [found.masks[i] for i in order.tolist()]
    areas = np.array([crop_area(mask) for mask in masks], np.float64)
    truths = picture.annotations
    truth_labels = np.array([truth.category for truth in truths], np.int64)
    crowd = np.array([truth.iscrowd for truth in truths], np.bool_)
    truth_corners = np.array([truth.bbox for truth in truths], np.float64).reshape(-1, 4)
    sides, truth_sides = _sides(corners), _sides(truth_corners)
    least = NEAR if thorough else SAME
    asked = np.ones((len(labels), len(truths)), np.bool_) if thorough else labels[:, None] == truth_labels

    box = np.zeros((len(labels), len(truths)))
    if asked.any():
        box = codec.iou(sides, truth_sides, crowd.astype(np.uint8))
    rows, columns = np.nonzero(asked & (box >= least))
    size = (picture.height, picture.width)
    crops = [
        segmentation_to_crop(truth.segmentation, size) if asked[:, j].any() else None for j, truth in enumerate(truths)
    ]
    mask = mask_pairs(masks, areas, crops, crowd, asked, least=least)
    close = mask.where((labels[mask.found] == truth_labels[mask.truth]) & (mask.iou >= SAME))
    return Tables(
        picture_ids=np.array([picture.id], np.int64),
        picture=np.zeros(len(labels), np.int64),
        label=labels,
        score=scores,
        mask_area=areas,
        box_area=sides[:, 2] * sides[:, 3],
        truth_picture=np.zeros(len(truths), np.int64),
        truth_label=truth_labels,
        truth_area=np.array([truth.area for truth in truths], np.float64),
        truth_crowd=crowd,
        mask=mask,
        box=Pairs(rows, columns, box[rows, columns]),
        boundary=boundary_pairs(close, masks, crops, crowd, size) if thorough else _NONE,
    )


def join(parts: Sequence[Tables]) -> Tables:
    """The tables of all pictures, from one for each, in the order of their ids."""
    parts = sorted(parts, key=lambda part: int(part.picture_ids[0]))
    found = np.array([len(part.label) for part in parts], np.int64)
    truths = np.array([len(part.truth_label) for part in parts], np.int64)
    first_found, first_truth = np.cumsum(found) - found, np.cumsum(truths) - truths

    def column(name: str) -> NDArray[Any]:
        empty = getattr(_NOTHING, name)
        return np.concatenate([empty, *(getattr(part, name) for part in parts)]).astype(empty.dtype)

    def pairs(kind: Kind) -> Pairs:
        each = [_NOTHING.pairs(kind), *(part.pairs(kind) for part in parts)]
        counts = [len(one.iou) for one in each[1:]]
        return Pairs(
            np.concatenate([one.found for one in each]) + np.repeat(first_found, counts),
            np.concatenate([one.truth for one in each]) + np.repeat(first_truth, counts),
            np.concatenate([one.iou for one in each]),
        )

    columns: dict[str, Any] = {field.name: column(field.name) for field in fields(Tables) if field.name not in KINDS}
    index = np.arange(len(parts))
    columns |= {"picture": np.repeat(index, found), "truth_picture": np.repeat(index, truths)}
    return Tables(**columns | {kind: pairs(kind) for kind in KINDS})


class Stored(NamedTuple):
    """What is kept of an evaluation."""

    tables: Tables
    classes: list[str]
    limit: int
    """Detections of a picture and class that enter AP."""


def save_tables(stored: Stored, file: Path) -> None:
    """Write the tables as a compressed `.npz` without objects.

    Raises UserError where it cannot be written.
    """
    columns: dict[str, Any] = {
        "classes": np.array(stored.classes, np.str_),
        "limit": np.array(stored.limit, np.int64),
    }
    for field in fields(Tables):
        value = getattr(stored.tables, field.name)
        columns |= (
            {f"{field.name}.{key}": getattr(value, key) for key in _PAIRS}
            if isinstance(value, Pairs)
            else {field.name: value}
        )
    beside = file.with_name(f".{file.name}.part")
    try:
        with beside.open("wb") as stream:
            np.savez_compressed(stream, **columns)
        beside.replace(file)
    except OSError as error:
        raise UserError(f"{file}: cannot be written: {error.strerror or error}") from None


def load_tables(file: Path) -> Stored:
    """What `save_tables` wrote.

    Raises UserError.
    """
    try:
        with np.load(file, allow_pickle=False) as columns:
            values: dict[str, Any] = {
                field.name: Pairs(*(columns[f"{field.name}.{key}"] for key in _PAIRS))
                if field.name in KINDS
                else columns[field.name]
                for field in fields(Tables)
            }
            return Stored(Tables(**values), columns["classes"].tolist(), int(columns["limit"]))
    except FileNotFoundError:
        raise UserError(f"{file}: missing; `seg-tune eval` writes it") from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{file}: not readable ({error!r:.80}); evaluate again with `seg-tune eval`") from None


_PAIRS = ("found", "truth", "iou")
_INTS, _FLOATS = np.zeros(0, np.int64), np.zeros(0, np.float64)
_NONE = Pairs(_INTS, _INTS, _FLOATS)
_NOTHING = Tables(
    picture_ids=_INTS,
    picture=_INTS,
    label=_INTS,
    score=_FLOATS,
    mask_area=_FLOATS,
    box_area=_FLOATS,
    truth_picture=_INTS,
    truth_label=_INTS,
    truth_area=_FLOATS,
    truth_crowd=np.zeros(0, np.bool_),
    mask=_NONE,
    box=_NONE,
    boundary=_NONE,
)


def _sides(corners: Floats) -> Floats:
    """x, y, width, height of x1, y1, x2, y2."""
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
