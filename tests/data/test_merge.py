from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from toolkit.data.coco import Annotation, Picture, Split
from toolkit.data.merge import merge, merge_classes, rename_classes
from toolkit.errors import UserError

SQUARE = [np.array([1.0, 1, 5, 1, 5, 5])]


def part(classes: dict[int, str], found: list[str], *, name: str = "train", origin: str = "one") -> Split:
    """One picture for each class in `found`, counted from 0."""
    pictures = [
        Picture(
            i,
            Path(origin) / f"{i}.jpg",
            f"{i}.jpg",
            8,
            8,
            [Annotation(i, list(classes.values()).index(label), (1, 1, 5, 5), SQUARE, 8.0, False)],
            {"license": 1},
        )
        for i, label in enumerate(found)
    ]
    return Split(name, Path(origin), tuple(classes.values()), tuple(classes), pictures)


def labels(split: Split) -> list[str]:
    return [split.classes[a.category] for p in split.pictures for a in p.annotations]


def test_classes_are_one_by_name_and_keep_the_ids_of_the_first():
    one = part({1: "cat", 5: "dog"}, ["dog", "cat"])
    two = part({0: "dog", 1: "cow", 2: "cat"}, ["cow", "cat", "dog"], origin="two")
    a, b = merge_classes([one, two])
    assert a.classes == b.classes == ("cat", "dog", "cow")
    assert a.category_ids == b.category_ids == (1, 5, 6)
    assert (labels(a), labels(b)) == (["dog", "cat"], ["cow", "cat", "dog"])


def test_parts_of_one_name_join_and_ids_are_new_where_they_clash():
    one = [part({1: "cat"}, ["cat", "cat"]), part({1: "cat"}, ["cat"], name="val")]
    two = [part({1: "dog"}, ["dog"], origin="two"), part({1: "dog"}, ["dog"], name="test", origin="two")]
    merged = merge([one, two])
    assert [(m.name, labels(m)) for m in merged] == [
        ("train", ["cat", "cat", "dog"]),
        ("val", ["cat"]),
        ("test", ["dog"]),
    ]
    assert all(m.classes == ("cat", "dog") and m.category_ids == (1, 2) for m in merged)
    assert [p.id for m in merged for p in m.pictures] == [1, 2, 3, 4, 5]
    assert [a.id for m in merged for p in m.pictures for a in p.annotations] == [1, 2, 3, 4, 5]


def test_ids_that_do_not_clash_stay():
    one, two = part({1: "cat"}, ["cat"]), part({1: "cat"}, ["cat"], origin="two")
    two = replace(
        two, pictures=[replace(p, id=70, annotations=[replace(a, id=9) for a in p.annotations]) for p in two.pictures]
    )
    [merged] = merge([[one], [two]])
    assert [p.id for p in merged.pictures] == [0, 70]
    assert [a.id for p in merged.pictures for a in p.annotations] == [0, 9]


def test_a_dataset_that_is_divided_and_one_that_is_not_are_refused():
    with pytest.raises(UserError, match="two: not divided into train and val, as the other"):
        merge([[part({1: "cat"}, ["cat"])], [part({1: "cat"}, ["cat"], name="all", origin="two")]])


def test_renamed_classes_may_become_one():
    renamed = rename_classes(part({1: "Cat", 2: "dog", 3: "cat"}, ["Cat", "dog", "cat"]), {"Cat": "cat"})
    assert renamed.classes == ("cat", "dog")
    assert renamed.category_ids == (1, 2)
    assert labels(renamed) == ["cat", "dog", "cat"]


def test_licences_that_differ_are_left_out_and_said():
    one = replace(part({1: "cat"}, ["cat"]), extra={"info": 1, "licenses": [{"id": 1, "name": "free"}]})
    same = replace(part({1: "cat"}, ["cat"], origin="two"), extra=one.extra)
    other = replace(same, extra={"licenses": [{"id": 1, "name": "not free"}]})
    [merged] = merge([[one], [same]])
    assert merged.extra == one.extra
    assert all(p.extra == {"license": 1} for p in merged.pictures)
    [merged] = merge([[one], [other]])
    assert merged.extra == {"info": 1}
    assert all(p.extra == {} for p in merged.pictures)
    assert "licenses: not those of all files; left out" in merged.notes[-1]
