"""Cityscapes (https://www.cityscapes-dataset.com): `gtFine/<part>/<city>/*_gtFine_instanceIds.png` beside
`leftImg8bit/<part>/<city>/*_leftImg8bit.png`.

A pixel of the 16-bit masks is 1000 x class + number for an object, and the class alone for a group of objects that
could not be told apart, which becomes a crowd region. The eight classes that have instances are taken.
"""

from __future__ import annotations

from pathlib import Path

from toolkit.data.coco import Picture, Split
from toolkit.data.convert.common import Notes, Sheet, checked, make_parts, read_ids
from toolkit.data.masks import id_map_to_rles
from toolkit.errors import UserError

CLASSES = {
    24: "person",
    25: "rider",
    26: "car",
    27: "truck",
    28: "bus",
    31: "train",
    32: "motorcycle",
    33: "bicycle",
}
"""Names by Cityscapes' own ids."""
_PICTURES, _ENDING = "leftImg8bit", "_leftImg8bit.png"
_KINDS = ("gtFine", "gtCoarse")


def recognizes(root: Path) -> bool:
    return (root / _PICTURES).is_dir() and any((root / kind).is_dir() for kind in _KINDS)


def read(root: Path, *, scratch: Path) -> list[Split]:
    """Train and val; the annotations of test are not public.

    Raises UserError.
    """
    kind = next((kind for kind in _KINDS if (root / kind).is_dir()), None)
    if kind is None or not (root / _PICTURES).is_dir():
        raise UserError(f"{root}: needs the folders {_PICTURES} and {_KINDS[0]}")
    notes = Notes(root)
    if (root / _PICTURES / "test").is_dir():
        notes.add("part whose annotations are not public (left out)", "test")
    parts: dict[str, list[Picture]] = {}
    for name in ("train", "val"):
        files = sorted((root / _PICTURES / name).rglob(f"*{_ENDING}"))
        if files:
            parts[name] = [_picture(file, root, kind) for file in files]
    if not parts:
        raise UserError(f"{root / _PICTURES}: no picture *{_ENDING} in train/ or val/")
    names = list(CLASSES.values())
    return make_parts(parts, root, names, notes)


def _picture(path: Path, root: Path, kind: str) -> Picture:
    name = path.relative_to(root / _PICTURES)
    file = root / kind / name.with_name(f"{name.name.removesuffix(_ENDING)}_{kind}_instanceIds.png")
    ids = read_ids(file)
    if ids.ndim != 2:
        raise UserError(f"{file}: must have one channel of 16 bits")
    sheet = Sheet.open(path, declared=ids.shape, place=str(file))
    classes = list(CLASSES)
    annotations = []
    for value, rle in id_map_to_rles(ids).items():
        number = value if value < 1000 else value // 1000
        if number in CLASSES:
            place = f"{file}: value {value}"
            annotations.append(checked(classes.index(number), rle, sheet.size, place=place, crowd=value < 1000))
    # Cities keep their folders; the part's own is said by the file of annotations.
    return sheet.picture(name.relative_to(name.parts[0]).as_posix(), annotations)
