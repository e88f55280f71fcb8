"""All rules over a dataset, in the order in which they can rely on one another."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from toolkit.data.findings.duplicates import check_annotations_twice, check_images_twice
from toolkit.data.findings.file import Advance, File, read_file
from toolkit.data.findings.geometry import check_masks, check_objects
from toolkit.data.findings.looks import Looks, look_at_pictures
from toolkit.data.findings.pictures import Listing, find_pictures
from toolkit.data.findings.quality import check_areas, check_boxes, check_extremes, check_shapes
from toolkit.data.findings.record import Findings
from toolkit.data.findings.splits import check_classes, check_pictures_in_both
from toolkit.data.findings.statistics import check_classes_in_val, check_counts, check_names, check_unlisted
from toolkit.data.findings.structure import check_categories, check_image_ids, check_references
from toolkit.data.layouts import Source

Stage = Callable[[str], AbstractContextManager[Advance]]
"""Announces a stretch of work by its name; what it yields takes how much is done, and of how much."""


def quietly(_: str) -> AbstractContextManager[Advance]:
    """A stage that nobody watches."""
    return nullcontext(lambda done, total: None)


@dataclass
class Checked:
    """A dataset and all that was found in it."""

    findings: Findings
    files: dict[str, File] = field(default_factory=dict)
    """The annotation files that could be read, by split."""
    looks: dict[str, Looks] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    """Time that the annotations and the pictures took."""


def check_sources(sources: Sequence[Source], *, max_images: int | None = None, stage: Stage = quietly) -> Checked:
    """Apply every rule to the annotation files and pictures of a dataset.

    Args:
        max_images: pictures of each split that are opened, evenly spread; by default all.
        stage: tells somebody how far it is.
    """
    checked = Checked(Findings(), seconds={"annotations": 0.0, "pictures": 0.0})
    listings = [_check_one(source, checked, max_images, stage) for source in sources]
    findings = checked.findings
    files, looks = list(checked.files.values()), checked.looks
    check_unlisted(files, [listing for listing in listings if listing], findings)
    if len(files) == 2:
        train, val = files
        with stage("train, val"):
            check_classes(train, val, findings)
            check_classes_in_val(train, val, findings)
            check_pictures_in_both(train, val, looks[train.split], looks[val.split], findings)
    return checked


def _check_one(source: Source, checked: Checked, max_images: int | None, stage: Stage) -> Listing | None:
    findings = checked.findings
    start = time.perf_counter()
    with stage(f"{source.name}: {source.json_path.name}") as advance:
        file = read_file(source, findings, advance=advance)
    if file is None:
        return None
    checked.files[source.name] = file
    check_categories(file, findings)
    check_names(file, findings)
    sound = check_image_ids(file, findings)
    checked.seconds["annotations"] += time.perf_counter() - start

    start = time.perf_counter()
    with stage(f"{source.name}: pictures") as advance:
        listing = find_pictures(file, findings)
        looks = look_at_pictures(file, findings, most=max_images, advance=advance)
    checked.looks[source.name] = looks
    check_images_twice(file, looks, findings)
    checked.seconds["pictures"] += time.perf_counter() - start

    start = time.perf_counter()
    rules = (check_areas, check_boxes, check_extremes, check_annotations_twice, check_counts, check_objects)
    with stage(f"{source.name}: annotations") as advance:
        check_references(file, sound, findings)
        parts = check_masks(file, findings)
        advance(1, len(rules) + 2)
        check_shapes(file, parts, findings)
        for done, rule in enumerate(rules, 2):
            advance(done, len(rules) + 2)
            rule(file, findings)
        advance(1, 1)
    checked.seconds["annotations"] += time.perf_counter() - start
    return listing
