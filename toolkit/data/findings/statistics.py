"""Rules on names of classes and on how much there is of everything."""

from __future__ import annotations

import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np

from toolkit.data.findings.file import File, Ints
from toolkit.data.findings.pictures import Listing
from toolkit.data.findings.record import Findings
from toolkit.recipe import Evaluate

FEW = 10
"""Objects of a class to train on."""
IMBALANCE = 100
SMALL_SPLIT = {"train": 20, "val": 5}
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


def check_names(file: File, findings: Findings) -> None:
    """Names of classes that may be meant to be one."""
    rows = {entry.get("name"): row for row, entry in reversed(list(enumerate(file.sections["categories"])))
            if isinstance(entry.get("name"), str)}  # fmt: skip
    seen: dict[str, str] = {}
    for name in file.classes.values():
        values = {"key": "name", "name": repr(name)}
        if name != name.strip() or any(unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp") for c in name):
            findings.add("category-name-spaces", file, "categories", [rows[name]], **values)
        other = seen.setdefault(plain_name(name), name)
        if other != name:
            findings.add("category-name-similar", file, "categories", [rows[name]], **values, other=repr(other))


def plain_name(name: str) -> str:
    """The name without case, spaces, signs that join words, and full-width letters."""
    return "".join(c for c in unicodedata.normalize("NFKC", name).casefold() if c.isalnum()) or name


def objects_by_class(file: File) -> Ints:
    """`[classes]`: objects that are not crowds and have a mask."""
    counted = file.category[~file.empty & ~file.crowd & (file.category >= 0)]
    return np.bincount(counted, minlength=len(file.classes))


def check_counts(file: File, findings: Findings) -> None:
    """Classes and pictures with few or many objects."""
    counts = objects_by_class(file)
    names = list(file.classes.values())
    rows = {entry.get("id"): row for row, entry in reversed(list(enumerate(file.sections["categories"])))
            if type(entry.get("id")) is int}  # fmt: skip
    places = [rows[number] for number in file.classes]
    if file.split == "train":
        for i in np.flatnonzero(counts == 0):
            findings.add("category-unused", file, "categories", [places[i]], key="name", name=names[i])
        for i in np.flatnonzero((counts > 0) & (counts < FEW)):
            findings.add("class-few", file, "categories", [places[i]], key="name", name=names[i], count=int(counts[i]))
        used = np.flatnonzero(counts)
        if len(used) > 1:
            most, least = used[counts[used].argmax()], used[counts[used].argmin()]
            ratio = counts[most] / counts[least]
            if ratio > IMBALANCE:
                findings.add("class-imbalance", file, most=names[most], least=names[least], ratio=float(ratio))
    pictures = len(file.sections["images"])
    if pictures < SMALL_SPLIT[file.split]:
        findings.add("split-small", file, count=pictures)
    of_picture = np.bincount(file.image[file.image >= 0], minlength=pictures)
    negatives = int((of_picture == 0).sum())
    if negatives:
        findings.add("images-negative", file, count=negatives)
    most_detections = Evaluate().max_detections
    crowded = np.flatnonzero(of_picture > most_detections)
    all_names = file.column("images", "file_name")
    findings.add(
        *("image-crowded", file, "images", crowded),
        name=[all_names[row] for row in crowded],
        count=of_picture[crowded],
        most=most_detections,
    )


def check_classes_in_val(train: File, val: File, findings: Findings) -> None:
    """Classes that are trained but cannot be measured."""
    measured = {name for name, count in zip(val.classes.values(), objects_by_class(val), strict=True) if count}
    rows = {entry.get("name"): row for row, entry in enumerate(train.sections["categories"])
            if isinstance(entry.get("name"), str)}  # fmt: skip
    for name, count in zip(train.classes.values(), objects_by_class(train), strict=True):
        if count and name not in measured:
            findings.add("class-not-in-val", train, "categories", [rows[name]], key="name", name=name)


def check_unlisted(files: list[File], listings: list[Listing], findings: Findings) -> None:
    """Pictures in the folders that no file names."""
    listed = {str(path) for file in files for path in file.files if path is not None}
    told = set()
    for file, listing in zip(files, listings, strict=True):
        used = Counter(str(path.parent) for path in file.files if path is not None)
        for folder in sorted(used):
            names = listing.folders[folder].values()
            lost = sorted(
                n for n in names if n.lower().endswith(PICTURE_SUFFIXES) and str(Path(folder, n)) not in listed
            )
            if lost and folder not in told:
                told.add(folder)
                findings.add("image-unlisted", file, count=len(lost), folder=folder, name=lost[0])
