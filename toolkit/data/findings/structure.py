"""Rules on ids, references and categories."""

from __future__ import annotations

from typing import Any

import numpy as np

from toolkit.data.findings.file import File, Flags, Ints, integers
from toolkit.data.findings.record import Findings


def check_categories(file: File, findings: Findings) -> None:
    """Rules on the categories; what they leave are the file's classes."""
    entries = file.sections["categories"]
    ids, sound = _check_ids(file, "categories", "category", findings)
    used = {value for value in file.column("annotations", "category_id") if type(value) is int}
    parents = {str(entry.get("supercategory")) for entry in entries}
    classes: dict[int, str] = {}
    for row in np.flatnonzero(sound).tolist():
        name = entries[row].get("name")
        if not isinstance(name, str) or not name.strip():
            findings.add("category-name-invalid", file, "categories", [row], key="name")
        elif name in classes.values():
            findings.add("category-name-duplicate", file, "categories", [row], key="name", name=name)
        elif entries[row].get("supercategory") == "none" and name in parents and int(ids[row]) not in used:
            findings.add("category-group", file, "categories", [row], key="name", name=name)
        else:
            classes[int(ids[row])] = name
    if not entries:
        findings.add("categories-empty", file)
    file.classes = dict(sorted(classes.items()))


def check_image_ids(file: File, findings: Findings) -> Flags:
    """Rules on the ids of images; returns which images have one of their own."""
    if not file.sections["images"]:
        findings.add("images-empty", file)
    file.image_ids, sound = _check_ids(file, "images", "image", findings)
    return sound


def check_references(file: File, sound: Flags, findings: Findings) -> None:
    """Rules on what annotations refer to.

    Args:
        sound: which images have an id of their own.
    """
    whole = file.sound["annotations"]
    for key, code, into, known in (
        ("image_id", "annotation-image-unknown", file.image, _rows_by_id(file.image_ids, sound)),
        ("category_id", "annotation-category-unknown", file.category, _rows_by_id(np.array([*file.classes], np.int64))),
    ):
        values = file.column("annotations", key)
        ids, given = integers(values)
        given &= whole
        into[given] = _look_up(ids[given], *known)
        lost = np.flatnonzero((into < 0) & whole).tolist()
        findings.add(code, file, "annotations", lost, key=key, value=[values[row] for row in lost])

    values = file.column("annotations", "iscrowd")
    wrong = [row for row, value in enumerate(values) if not _is_crowd_flag(value)]
    findings.add("iscrowd-invalid", file, "annotations", wrong, key="iscrowd", value=[values[row] for row in wrong])
    file.crowd = np.array([_is_crowd_flag(value) and bool(value) for value in values], np.bool_)
    _check_ids(file, "annotations", "annotation", findings)


def _is_crowd_flag(value: Any) -> bool:
    return value is None or (isinstance(value, (int, float)) and value in (0, 1))


def _check_ids(file: File, section: str, noun: str, findings: Findings) -> tuple[Ints, Flags]:
    """The ids, and which entries have one that no entry before has."""
    values = file.column(section, "id")
    ids, sound = integers(values)
    whole = file.sound[section]
    if noun == "annotation":
        absent = np.array([value is None for value in values], np.bool_)
        findings.add("annotation-id-missing", file, section, np.flatnonzero(absent & whole).tolist(), key="id")
        wrong = ~sound & ~absent & whole
    else:
        wrong = ~sound & whole
    findings.add(f"{noun}-id-invalid", file, section, np.flatnonzero(wrong).tolist(), key="id")
    sound = sound & whole
    rows = np.flatnonzero(sound)
    _, first = np.unique(ids[rows], return_index=True)
    if len(first) < len(rows):
        again = np.delete(rows, first)
        findings.add(f"{noun}-id-duplicate", file, section, again.tolist(), key="id")
        sound[again] = False
    return ids, sound


def _rows_by_id(ids: Ints, sound: Flags | None = None) -> tuple[Ints, Ints]:
    """Ids in order, and the row of each."""
    rows = np.arange(len(ids)) if sound is None else np.flatnonzero(sound)
    order = rows[np.argsort(ids[rows], kind="stable")]
    return ids[order], order


def _look_up(ids: Ints, known: Ints, rows: Ints) -> Ints:
    if not len(known):
        return np.full(len(ids), -1)
    place = np.searchsorted(known, ids).clip(0, len(known) - 1)
    return np.where(known[place] == ids, rows[place], -1)
