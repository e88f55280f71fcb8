"""Rules on what is there twice."""

from __future__ import annotations

import numpy as np

from toolkit.data.findings.file import File
from toolkit.data.findings.looks import Looks
from toolkit.data.findings.record import Findings

_MIX = np.uint64(0x9E3779B97F4A7C15)


def check_annotations_twice(file: File, findings: Findings) -> None:
    """The same mask twice on one picture."""
    outlines = file.outlines
    assert outlines is not None
    rows = np.flatnonzero(~file.empty & (file.category >= 0))
    points = np.diff(outlines.start[outlines.first])[rows]
    columns = [file.image[rows], points, file.area[rows], *file.box[rows].T]
    keys = np.zeros(len(rows), np.uint64)
    for column in columns:
        keys = (keys ^ np.ascontiguousarray(column).view(np.uint64)) * _MIX
        keys ^= keys >> np.uint64(29)
    order = np.argsort(keys, kind="stable")
    same = np.flatnonzero(keys[order][1:] == keys[order][:-1]) + 1
    groups: dict[int, list[int]] = {}
    for place in same.tolist():
        row = int(rows[order[place]])
        # Rows of a group follow one another, the first of them before the first `place`.
        earlier = groups.setdefault(int(keys[order[place]]), [int(rows[order[place - 1]])])
        other = next((o for o in earlier if _same_mask(file, o, row)), None)
        if other is None:
            earlier.append(row)
        else:
            alike = file.category[other] == file.category[row]
            code = "annotation-duplicate" if alike else "annotation-two-classes"
            findings.add(code, file, "annotations", [row], other=other)


def _same_mask(file: File, one: int, other: int) -> bool:
    outlines = file.outlines
    assert outlines is not None
    if one in outlines.rles or other in outlines.rles:
        return outlines.rles.get(one) == outlines.rles.get(other)
    a, b = (outlines.points[slice(*outlines.start[outlines.first[[row, row + 1]]])] for row in (one, other))
    return np.array_equal(a, b)


def check_images_twice(file: File, looks: Looks, findings: Findings) -> None:
    """The same file under two entries, or under two names."""
    by_path: dict[str, int] = {}
    by_digest: dict[bytes, int] = {}
    names = file.column("images", "file_name")
    for row, path in enumerate(file.files):
        if path is None:
            continue
        first = by_path.setdefault(str(path), row)
        if first != row:
            findings.add("image-listed-twice", file, "images", [row], key="file_name", name=names[row], other=first)
        elif row in looks.digests and (same := by_digest.setdefault(looks.digests[row], row)) != row:
            findings.add("image-duplicate", file, "images", [row], key="file_name", name=names[row], other=names[same])
