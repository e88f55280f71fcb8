from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from toolkit.data.coco import Annotation, Picture, Split
from toolkit.data.split import folds, sample, split, stratify
from toolkit.errors import UserError

CLASSES = ("dog", "cat", "cow")
SQUARE = [np.array([1.0, 1, 5, 1, 5, 5])]


def picture(number: int, categories: list[int], name: str | None = None, *, first: int = 0) -> Picture:
    found = [Annotation(first + i, category, (1, 1, 5, 5), SQUARE, 8.0, False) for i, category in enumerate(categories)]
    file_name = name or f"{number}.jpg"
    return Picture(number, Path(file_name), file_name, 8, 8, found)


def part(pictures: list[Picture], name: str = "all") -> Split:
    return Split(name, Path("data"), CLASSES, (0, 1, 2), pictures)


def many(count: int, *, name: str = "all", seed: int = 0) -> Split:
    """Every picture has a dog or is a negative; few have a cat, two a cow."""
    rng = np.random.default_rng(seed)
    pictures = []
    for i in range(count):
        categories = [0] * int(rng.integers(0, 3)) + [1] * (i % 8 == 0) + [2] * (i in (3, count - 3))
        pictures.append(picture(i, categories, f"{name} {i}.jpg", first=10 * i))
    return part(pictures, name)


def names(parts: list[Split]) -> list[list[str]]:
    return [[p.file_name for p in one.pictures] for one in parts]


def test_every_class_and_the_negatives_have_their_share():
    whole = many(200)
    train, val = split([whole], {"train": 0.75, "val": 0.25})
    assert (len(train.pictures), len(val.pictures)) == (150, 50)
    assert sorted(chain(*names([train, val]))) == sorted(names([whole])[0])
    for category in (0, 1, None):

        def holds(p, category=category):
            found = {a.category for a in p.annotations}
            return category in found if category is not None else not found

        counts = [sum(map(holds, one.pictures)) for one in (whole, val)]
        assert counts[1] == pytest.approx(counts[0] / 4, abs=1)
    # The two cows cannot be divided 3 to 1; no class is in val alone.
    assert any(a.category == 2 for p in train.pictures for a in p.annotations)


def test_the_seed_decides_and_nothing_else():
    first = names(split([many(60)], {"train": 0.5, "val": 0.5}, seed=3))
    assert names(split([many(60)], {"train": 0.5, "val": 0.5}, seed=3)) == first
    assert names(split([many(60)], {"train": 0.5, "val": 0.5}, seed=4)) != first


def test_ids_counted_from_0_stay_and_stay_unique():
    """Eight images came out of a known tool's split with seven ids."""
    whole = part([picture(i, [0], first=i) for i in range(8)])
    parts = split([whole], {"train": 0.75, "val": 0.25})
    ids = [p.id for one in parts for p in one.pictures]
    assert sorted(ids) == list(range(8))
    assert sorted(a.id for one in parts for p in one.pictures for a in p.annotations) == list(range(8))
    assert all(f"{p.id}.jpg" == p.file_name for one in parts for p in one.pictures)


def test_what_was_divided_is_divided_anew_with_new_ids_where_they_clash():
    parts = split([many(20, name="train"), many(12, name="val", seed=1)], {"train": 0.5, "val": 0.25, "test": 0.25})
    assert [one.name for one in parts] == ["train", "val", "test"]
    assert [len(one.pictures) for one in parts] == [16, 8, 8]
    ids = [p.id for one in parts for p in one.pictures]
    assert sorted(ids) == list(range(1, 33))
    numbers = [a.id for one in parts for p in one.pictures for a in p.annotations]
    assert len(set(numbers)) == len(numbers)


def test_a_picture_listed_in_both_parts_comes_to_one_side():
    leaked = [replace(many(40), name=name) for name in ("train", "val")]
    train, val = split(leaked, {"train": 0.5, "val": 0.5})
    assert not {p.path for p in train.pictures} & {p.path for p in val.pictures}
    assert (len(train.pictures), len(val.pictures)) == (40, 40)


def test_groups_stay_on_one_side():
    rng = np.random.default_rng(0)
    whole = part([picture(i, [int(rng.integers(0, 3))], f"scene{i // 5}/frame_{i}.jpg") for i in range(100)])
    for pattern in ("^(.*)/", "scene[0-9]+"):
        train, val = split([whole], {"train": 0.8, "val": 0.2}, group=pattern)
        scenes = [{name.split("/")[0] for name in one} for one in names([train, val])]
        assert not scenes[0] & scenes[1]
        assert len(val.pictures) == 20
        assert {a.category for p in val.pictures for a in p.annotations} == {0, 1, 2}


def test_wrong_patterns_are_refused():
    with pytest.raises(UserError, match=r"--group \(: not a regular expression"):
        split([many(9)], {"train": 0.5, "val": 0.5}, group="(")
    with pytest.raises(UserError, match=r"--group \^scene: does not match all 0\.jpg"):
        split([many(9)], {"train": 0.5, "val": 0.5}, group="^scene")


def test_folds_show_every_picture_once_in_val():
    whole = many(50)
    result = folds([whole], 4)
    assert Counter(chain(*names([val for _, val in result]))) == Counter(names([whole])[0])
    for train, val in result:
        assert (train.name, val.name) == ("train", "val")
        assert sorted(names([train])[0] + names([val])[0]) == sorted(names([whole])[0])
        assert len(val.pictures) in (12, 13)


@pytest.mark.parametrize("group", [None, "^(all)"])
def test_too_few_pictures_are_refused(group):
    whole = many(40 if group else 3)
    with pytest.raises(UserError, match=r"would have no object: .* too few for this division"):
        folds([whole], 5, group=group)


def test_a_sample_is_as_large_as_asked_and_keeps_parts_and_classes():
    parts = sample([many(90, name="train"), many(30, name="val", seed=1)], 24)
    assert [(one.name, len(one.pictures)) for one in parts] == [("train", 18), ("val", 6)]
    assert all(any(a.category == 1 for p in one.pictures for a in p.annotations) for one in parts)
    assert names(sample([many(90)], 24)) == names(sample([many(90)], 24)) != names(sample([many(90)], 24, seed=1))
    with pytest.raises(UserError, match="--count 90: the dataset has 90 pictures"):
        sample([many(90)], 90)
    negatives = part([replace(p, annotations=[]) for p in many(9).pictures], "val")
    with pytest.raises(UserError, match="val would have no object"):
        sample([many(20, name="train"), negatives], 5)


@settings(max_examples=60)
@given(
    arrays(np.int64, st.tuples(st.integers(1, 30), st.integers(1, 5)), elements=st.integers(0, 2)),
    st.lists(st.integers(1, 5), min_size=1, max_size=4),
    st.integers(0, 5),
)
def test_parts_of_single_pictures_are_off_by_less_than_one(labels, weights, seed):
    labels = np.column_stack([labels, labels.sum(1) == 0]).astype(np.int64)
    shares = np.array(weights) / sum(weights)
    dealt = stratify(labels, np.ones(len(labels), np.int64), shares.tolist(), seed=seed)
    counts = np.bincount(dealt, minlength=len(shares))
    assert counts.sum() == len(labels)
    assert (np.abs(counts - shares * len(labels)) < 1).all()


def test_stratified_halves_differ_less_than_random_ones():
    rng = np.random.default_rng(0)
    labels = (rng.random((120, 12)) < np.linspace(0.02, 0.5, 12)).astype(np.int64)
    labels = np.column_stack([labels, labels.sum(1) == 0]).astype(np.int64)

    def apart(dealt):
        return np.abs(labels[dealt == 0].sum(0) - labels[dealt == 1].sum(0)).sum()

    ours = [apart(stratify(labels, np.ones(120, np.int64), [0.5, 0.5], seed=i)) for i in range(10)]
    random = [apart(rng.permutation(np.arange(120) % 2)) for _ in range(10)]
    assert max(ours) < min(random)
    assert np.mean(ours) < np.mean(random) / 3
