"""Rules on picture files: names, places, sizes, and whether they can be read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from toolkit.data.findings.file import File
from toolkit.data.findings.record import Findings
from toolkit.data.images import LONGEST_SIDE, Header, PictureError, read_header

THREADS = 4
AHEAD = 64
"""Pictures that are waited for at once."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class Listing:
    """Which files there are, a folder read once."""

    def __init__(self) -> None:
        self.folders: dict[str, dict[str, str]] = {}
        """Folder -> lower-case name -> name."""
        self._names: dict[str, set[str]] = {}

    def has(self, path: str) -> bool:
        folder, name = os.path.split(path)
        return name in self._read(folder)

    def other_case(self, path: str) -> str | None:
        """A file whose path differs from `path` by the case of its last two parts alone."""
        folder, name = os.path.split(path)
        above, last = os.path.split(folder)
        try:
            near = [f for f in os.listdir(above) if f.lower() == last.lower()] if not os.path.isdir(folder) else [last]  # noqa: PTH208, PTH112
        except (OSError, ValueError):
            return None
        for candidate in near:
            within = os.path.join(above, candidate)  # noqa: PTH118
            self._read(within)
            if (actual := self.folders[within].get(name.lower())) is not None:
                return os.path.join(within, actual)  # noqa: PTH118
        return None

    def _read(self, folder: str) -> set[str]:
        if folder not in self._names:
            try:
                with os.scandir(folder) as entries:
                    names = {entry.name for entry in entries if entry.is_file()}
            except (OSError, ValueError):
                names = set()
            self._names[folder] = names
            self.folders[folder] = {name.lower(): name for name in sorted(names, reverse=True)}
        return self._names[folder]


def find_pictures(file: File, findings: Findings) -> Listing:
    """Rules on file names; finds the file of each image."""
    source = file.source
    root = os.path.abspath(source.root)  # noqa: PTH100
    folders = [str(folder) for folder in source.folders]
    listing = Listing()
    for row in np.flatnonzero(file.sound["images"]).tolist():
        name = file.sections["images"][row].get("file_name")
        if not isinstance(name, str) or not name or "\0" in name:
            findings.add("image-name-invalid", file, "images", [row], key="file_name")
            continue
        candidates = [_joined(folder, name) for folder in folders]
        if "\\" in name:
            # Files written on Windows separate folders by backslashes.
            candidates += [_joined(folder, name.replace("\\", "/")) for folder in folders]
        inside = [path for path in candidates if _within(path, root)]
        found = next((path for path in inside if listing.has(path)), None)
        place: dict[str, Any] = {"key": "file_name", "name": name}
        if found is not None:
            file.files[row] = Path(found)
            if candidates.index(found) >= len(folders):
                findings.add("image-name-backslash", file, "images", [row], **place)
        elif not any(_within(path, root) for path in candidates[-len(folders) :]):
            findings.add("image-outside", file, "images", [row], **place, root=source.root)
        elif (actual := next(filter(None, map(listing.other_case, inside)), None)) is not None:
            file.files[row] = Path(actual)
            findings.add("image-name-case", file, "images", [row], **place, actual=actual)
        else:
            findings.add("image-missing", file, "images", [row], **place, looked=", ".join(folders))
    return listing


def _joined(folder: str, name: str) -> str:
    # By name, not by where links lead: folders of pictures often are links.
    return os.path.normpath(os.path.join(folder, name))  # noqa: PTH118


def _within(path: str, root: str) -> bool:
    absolute = os.path.abspath(path)  # noqa: PTH100
    return absolute.startswith(root.rstrip(os.sep) + os.sep)


def read_headers(file: File, findings: Findings) -> None:
    """Rules on what the files of pictures say about themselves."""
    rows = [row for row, path in enumerate(file.files) if path is not None]
    for row, header in in_threads(lambda row: _header(file.files[row]), rows):
        if isinstance(header, PictureError):
            findings.add(header.code, file, "images", [row], key="file_name", error=str(header))
        else:
            compare_size(file, row, header, findings)


def in_threads(make: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[tuple[Item, Result]]:
    """(item, made of it), in order; few are in the making at a time, so that it can be interrupted."""
    with ThreadPoolExecutor(THREADS) as pool:
        rest = iter(items)
        waiting = [(item, pool.submit(make, item)) for item in islice(rest, AHEAD)]
        try:
            for start in range(len(items)):
                item, future = waiting[start % AHEAD]
                result = future.result()
                for following in islice(rest, 1):
                    waiting[start % AHEAD] = following, pool.submit(make, following)
                yield item, result
        finally:
            for _, future in waiting:
                future.cancel()


def _header(path: Path | None) -> Header | PictureError:
    assert path is not None
    try:
        return read_header(path)
    except PictureError as error:
        return error


def compare_size(file: File, row: int, header: Header, findings: Findings) -> None:
    """Rules on `width` and `height`; sets the sizes of the image."""
    entry = file.sections["images"][row]
    name = entry["file_name"]
    declared = entry.get("height"), entry.get("width")
    values: dict[str, Any] = {"name": name, "orientation": header.orientation}
    if declared not in ((None, None), header.displayed, header.stored):
        height, width = header.displayed
        findings.add(
            *("image-size-mismatch", file, "images", [row]),
            key="width",
            name=name,
            height=height,
            width=width,
            declared_height=[declared[0]],
            declared_width=[declared[1]],
        )
        return
    file.size[row] = file.frame[row] = header.displayed
    if declared == (None, None):
        findings.add("image-size-missing", file, "images", [row], key="width")
    elif declared != header.displayed:
        file.frame[row], file.orientation[row] = header.stored, header.orientation
        findings.add("image-exif-rotated", file, "images", [row], **values)
    elif header.orientation != 1:
        findings.add("image-exif", file, "images", [row], **values)


def take_declared_size(file: File, row: int) -> None:
    """For an image whose file is not looked at."""
    entry = file.sections["images"][row]
    declared = np.array([entry.get("height"), entry.get("width")], object)
    if all(type(side) is int and 0 < side <= LONGEST_SIDE for side in declared):
        file.size[row] = file.frame[row] = declared.astype(np.int64)
