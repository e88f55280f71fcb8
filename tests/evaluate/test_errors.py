"""Planted errors come out as what they are, and in the right amount."""

from __future__ import annotations

import numpy as np
import pytest

from tests.evaluate import planted
from tests.evaluate.planted import CLASSES, make_split, spoiled
from toolkit.evaluate.errors import ERRORS, find_errors

SPLIT = make_split()
OBJECTS = sum(len(picture.annotations) for picture in SPLIT.pictures)
PLANTED = {
    "localisation": planted.shifted,
    "class": planted.swapped,
    "duplicate": planted.doubled,
    "background": planted.far,
    "both": planted.swapped_and_shifted,
    "missed": planted.dropped,
}


@pytest.mark.parametrize("kind", ERRORS)
def test_a_fifth_spoiled_is_found_as_what_it_is(kind: str) -> None:
    errors = find_errors(spoiled(SPLIT, PLANTED[kind]), classes=len(CLASSES))
    counts = {name: int(count.sum()) for name, count in errors.counts.items()}
    count = counts.pop(kind)
    assert 0.15 * OBJECTS < count < 0.25 * OBJECTS
    # What lies on the wrong place in the wrong class leaves its object missed.
    assert counts.pop("missed", count) == (count if kind in ("both", "missed") else 0)
    assert not any(counts.values())
    lost = dict(errors.lost)
    if kind == "both":
        assert lost.pop("missed") > 0.1
    worst = max(lost, key=lost.__getitem__)
    assert worst == kind
    assert errors.ap50 is not None
    if kind in ("localisation", "class", "missed"):
        # A fifth of the objects is what it cost, and mending it brings AP50 back to 1.
        assert errors.ap50 + lost[kind] == pytest.approx(1, abs=0.011)
        assert 0.12 < lost[kind] < 0.35
    assert all(abs(value) < 0.01 for name, value in lost.items() if name != kind)


def test_eroded_masks_are_errors_of_localisation_with_the_right_box() -> None:
    errors = find_errors(spoiled(SPLIT, planted.eroded), classes=len(CLASSES))
    count = int(errors.counts["localisation"].sum())
    assert 0.15 * OBJECTS < count < 0.25 * OBJECTS
    assert errors.box_right == count
    shifted = find_errors(spoiled(SPLIT, planted.shifted), classes=len(CLASSES))
    assert shifted.box_right == 0


def test_several_kinds_at_once_are_told_apart() -> None:
    kinds = [planted.shifted, planted.swapped, planted.doubled, planted.dropped]

    def one_of(row: planted.Row, rng: np.random.Generator) -> list[planted.Row]:
        return kinds[int(rng.integers(len(kinds)))](row, rng)

    errors = find_errors(spoiled(SPLIT, one_of, part=0.6), classes=len(CLASSES))
    for kind in ("localisation", "class", "duplicate", "missed"):
        assert 0.1 * OBJECTS < errors.counts[kind].sum() < 0.2 * OBJECTS, kind
    assert errors.counts["background"].sum() == errors.counts["both"].sum() == 0


def test_perfect_detections_have_no_errors() -> None:
    errors = find_errors(spoiled(SPLIT, planted.dropped, part=0), classes=len(CLASSES))
    assert errors.ap50 == pytest.approx(1)
    assert not any(count.any() for count in errors.counts.values())
    assert not any(errors.lost.values())


def test_of_two_shifted_detections_one_is_mended_and_one_dropped() -> None:
    def twice(row: planted.Row, rng: np.random.Generator) -> list[planted.Row]:
        return [*planted.shifted(row, rng), *planted.shifted(planted.doubled(row, rng)[1], rng)]

    errors = find_errors(spoiled(SPLIT, twice), classes=len(CLASSES))
    assert errors.ap50 is not None
    assert errors.ap50 + errors.lost["localisation"] == pytest.approx(1, abs=0.011)
