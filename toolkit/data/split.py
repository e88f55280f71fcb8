"""Datasets divided: by ratio or into folds, with every class in its share on each side, and samples of them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from toolkit.data.coco import Picture, Split
from toolkit.data.merge import join, unique_ids
from toolkit.errors import UserError


def split(
    parts: Sequence[Split], shares: Mapping[str, float], *, seed: int = 0, group: str | None = None
) -> list[Split]:
    """All pictures of `parts`, divided anew.

    Args:
        parts: with one list of classes.
        shares: name of each new part and its share of the pictures; they sum to 1.
        seed: the same one gives the same division.
        group: a regular expression. Pictures in whose file names it matches the same text (the same first bracket,
            where it has one) come into the same part.

    Raises UserError where a part would have no object, or for a pattern that is wrong or matches no picture's name.
    """
    whole = unique_ids([join(parts, "all")])[0]
    result = _dealt(whole, shares, seed=seed, group=group)
    for part in result:
        if not any(not a.iscrowd for picture in part.pictures for a in picture.annotations):
            groups = f" in {len(set(_groups(whole, group)))} groups" if group else ""
            raise UserError(
                f"{whole.json_path}: {part.name} would have no object: {len(whole.pictures)} pictures{groups} are too "
                "few for this division"
            )
    return result


def folds(parts: Sequence[Split], count: int, *, seed: int = 0, group: str | None = None) -> list[list[Split]]:
    """`count` divisions into train and val, in which every picture is once in val; arguments as in `split`.

    Raises UserError.
    """
    divided = split(parts, {f"fold {number}": 1 / count for number in range(1, count + 1)}, seed=seed, group=group)
    return [
        [join([part for part in divided if part is not val], "train"), dataclasses.replace(val, name="val")]
        for val in divided
    ]


def sample(parts: Sequence[Split], count: int, *, seed: int = 0) -> list[Split]:
    """`count` pictures, of each part its share, with the classes about in their proportions.

    Raises UserError where a part would have no object.
    """
    total = sum(len(part.pictures) for part in parts)
    if count >= total:
        raise UserError(f"--count {count}: the dataset has {total} pictures")
    ends = np.cumsum([len(part.pictures) for part in parts]) * count // total
    counts = np.diff(ends, prepend=0).tolist()
    chosen = []
    for part, number in zip(parts, counts, strict=True):
        share = number / len(part.pictures)
        chosen.append(_dealt(part, {part.name: share, "rest": 1 - share}, seed=seed)[0])
    for part in chosen:
        if not any(not a.iscrowd for picture in part.pictures for a in picture.annotations):
            raise UserError(f"--count {count}: too few, {part.name} would have no object")
    return chosen


def _dealt(whole: Split, shares: Mapping[str, float], *, seed: int, group: str | None = None) -> list[Split]:
    groups, unit_of = np.unique(_groups(whole, group), return_inverse=True)
    # One more column for negatives, so that they are shared out as well.
    labels = np.zeros((len(groups), len(whole.classes) + 1), np.int64)
    for unit, picture in zip(unit_of, whole.pictures, strict=True):
        found = {a.category for a in picture.annotations if not a.iscrowd}
        labels[unit, sorted(found) if found else -1] += 1
    dealt = stratify(labels, np.bincount(unit_of), list(shares.values()), seed=seed)[unit_of]
    return [
        dataclasses.replace(
            whole,
            name=name,
            pictures=[picture for picture, part in zip(whole.pictures, dealt, strict=True) if part == number],
            notes=() if number else whole.notes,
        )
        for number, name in enumerate(shares)
    ]


def _groups(part: Split, pattern: str | None) -> list[str]:
    """What pictures that stay together have in common."""
    if pattern is None:
        # A picture that is listed twice, in train and in val perhaps, is one picture still.
        numbers: dict[Path, int] = {}
        return [f"{numbers.setdefault(picture.path, len(numbers)):09d}" for picture in part.pictures]
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UserError(f"--group {pattern}: not a regular expression: {error}") from None
    return [_group(compiled, picture) for picture in part.pictures]


def _group(pattern: re.Pattern[str], picture: Picture) -> str:
    match = pattern.search(picture.file_name)
    if match is None:
        raise UserError(f"--group {pattern.pattern}: does not match {picture.file_name}; it must match every file name")
    return match.group(1 if pattern.groups else 0) or ""


def stratify(
    labels: NDArray[np.int64], sizes: NDArray[np.int64], shares: Sequence[float], *, seed: int
) -> NDArray[np.int64]:
    """Iterative stratification (Sechidis, Tsoumakas and Vlahavas 2011, algorithm 1), for units of several pictures.

    The rarest label is dealt out first; each unit goes to the part that lacks most of that label, among equals to the
    one that lacks most pictures, among those by lot. Rare labels can leave parts too large by that; those then give
    away the units that labels miss least.

    Args:
        labels: `[units, labels]`, in how many of a unit's pictures a label occurs.
        sizes: `[units]`, pictures of each unit.
        shares: share of each part; they sum to 1.

    Returns the part of each unit, `[units]`.
    """
    rng = np.random.default_rng(seed)
    part = np.full(len(labels), -1)
    lacking = np.outer(shares, labels.sum(0)).astype(np.float64)
    room = np.multiply(shares, sizes.sum()).astype(np.float64)
    # By lot, then units with many of a label before those with few: what is coarse is dealt while there is room.
    order = rng.permutation(len(labels))
    while (open_units := order[part[order] < 0]).size:
        left = (labels[open_units] > 0).sum(0)
        label = int(np.where(left > 0, left, len(labels) + 1).argmin())
        holders = open_units[labels[open_units, label] > 0]
        for unit in holders[np.argsort(-labels[holders, label], kind="stable")]:
            best = np.lexsort((rng.random(len(shares)), -room.round(9), -lacking[:, label].round(9)))[0]
            part[unit] = best
            lacking[best] -= labels[unit]
            room[best] -= sizes[unit]
    _even(part, labels, sizes, lacking, room)
    return part


def _even(
    part: NDArray[np.int64],
    labels: NDArray[np.int64],
    sizes: NDArray[np.int64],
    lacking: NDArray[np.float64],
    room: NDArray[np.float64],
) -> None:
    """Move units from the largest part to the smallest, as measured by `room`, while either is off by a picture."""
    weight = 1 / np.maximum(labels.sum(0), 1)
    while -room.min() >= 1 - 1e-9 or room.max() >= 1 - 1e-9:
        full, short = int(room.argmin()), int(room.argmax())
        movable = np.flatnonzero((part == full) & (sizes < room[short] - room[full] - 1e-9))
        if not movable.size:
            return
        # What a move adds to the squares of what labels lack.
        some = labels[movable]
        cost = some @ (weight * (lacking[full] - lacking[short])) + (some * some) @ weight
        unit = movable[cost.argmin()]
        part[unit] = short
        lacking[full] += labels[unit]
        lacking[short] -= labels[unit]
        room[full] += sizes[unit]
        room[short] -= sizes[unit]
