"""Rules on what train and val have in common."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from toolkit.data.findings.file import File
from toolkit.data.findings.looks import Looks
from toolkit.data.findings.record import Findings

ALIKE = 4.0
"""Mean difference in gray levels of two thumbnails that show nearly the same."""
PLAIN = 8.0
"""Standard deviation of thumbnails that show too little to compare."""
NEIGHBOURS = 4


def check_classes(train: File, val: File, findings: Findings) -> None:
    """Rules on the classes of both files."""
    names, others = list(train.classes.values()), list(val.classes.values())
    rows = {
        entry.get("id"): row for row, entry in enumerate(val.sections["categories"]) if type(entry.get("id")) is int
    }
    unknown = [number for number, name in val.classes.items() if name not in names]
    findings.add(
        *("category-only-in-val", val, "categories", [rows[number] for number in unknown]),
        key="name",
        name=[val.classes[number] for number in unknown],
        train=f"{train.path} ({', '.join(names)})",
    )
    missing = [name for name in names if name not in others]
    if missing:
        findings.add("categories-differ", val, how=f"lack {', '.join(missing)}", how_zh=f"缺少 {', '.join(missing)}")
    elif names != others and not unknown:
        findings.add("categories-differ", val, how="have another order", how_zh="顺序不同")


def check_pictures_in_both(train: File, val: File, train_looks: Looks, val_looks: Looks, findings: Findings) -> None:
    """The same picture, or nearly the same, in both splits."""
    by_digest = {digest: row for row, digest in reversed(train_looks.digests.items())}
    by_path = {str(path): row for row, path in enumerate(train.files) if path is not None}
    names = [file.column("images", "file_name") for file in (train, val)]
    rest = []
    for row, path in enumerate(val.files):
        same = by_path.get(str(path), by_digest.get(val_looks.digests.get(row, b"")))
        if same is not None:
            name, other = names[1][row], names[0][same]
            findings.add("image-in-both-splits", val, "images", [row], key="file_name", name=name, other=other)
        elif row in val_looks.digests and val_looks.thumbs[row].std() > PLAIN:
            rest.append(row)
    known = np.array(sorted(train_looks.digests), np.int64)
    if not len(known) or not rest:
        return
    neighbours = cKDTree(_coarse(train_looks, known)).query(_coarse(val_looks, np.array(rest)), k=NEIGHBOURS)[1]
    for row, near in zip(rest, neighbours.tolist(), strict=True):
        candidates = known[[i for i in near if i < len(known)]]
        thumbs = train_looks.thumbs[candidates].astype(np.float32)
        difference = np.abs(thumbs - val_looks.thumbs[row]).mean((1, 2))
        if difference.min() < ALIKE:
            name, other = names[1][row], names[0][int(candidates[difference.argmin()])]
            findings.add("image-similar-in-both-splits", val, "images", [row], key="file_name", name=name, other=other)


def _coarse(looks: Looks, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """`[n, 16]`: the thumbnails at 4 x 4 pixels."""
    return looks.thumbs[rows].reshape(-1, 4, 4, 4, 4).mean((2, 4), dtype=np.float32).reshape(-1, 16)
