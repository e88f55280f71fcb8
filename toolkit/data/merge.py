"""Datasets made one: classes by name, ids that are unique over all parts, parts joined."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

from toolkit.data.coco import Annotation, Picture, Split
from toolkit.errors import UserError


def merge(datasets: Sequence[Sequence[Split]]) -> list[Split]:
    """The datasets as one: parts of one name are joined, classes of one name are one class.

    Raises UserError if one is divided and another is not.
    """
    parts = merge_classes([part for dataset in datasets for part in dataset])
    divided = {frozenset(part.name for part in dataset) for dataset in datasets}
    if any("all" in names for names in divided) and any("all" not in names for names in divided):
        whole = next(dataset for dataset in datasets if dataset[0].name == "all")[0]
        raise UserError(
            f"{whole.json_path}: not divided into train and val, as the other datasets are; use `seg-tune split` first"
        )
    names = dict.fromkeys(part.name for part in parts)
    return unique_ids([join([part for part in parts if part.name == name], name) for name in names])


def join(parts: Sequence[Split], name: str) -> Split:
    """The pictures of `parts`, which have one list of classes, as one part called `name`."""
    first = parts[0]
    pictures = [picture for part in parts for picture in part.pictures]
    extra, notes = dict(first.extra), [line for part in parts for line in part.notes]
    if any(part.extra.get("licenses") != first.extra.get("licenses") for part in parts):
        extra.pop("licenses", None)
        pictures = [dataclasses.replace(p, extra=_without(p.extra, "license")) for p in pictures]
        notes.append(f"{first.json_path}: licenses: not those of all files; left out, with each picture's license")
    return dataclasses.replace(first, name=name, pictures=pictures, extra=extra, notes=tuple(notes))


def merge_classes(parts: Sequence[Split]) -> list[Split]:
    """The parts with one list of classes: those of the first, then what others have besides.

    Ids stay where no class of another name has them.
    """
    ids: dict[str, int] = {}
    extras: dict[str, Mapping[str, object]] = {}
    for part in parts:
        more = part.category_extra or ({},) * len(part.classes)
        for name, number, extra in zip(part.classes, part.category_ids, more, strict=True):
            if name not in ids:
                ids[name] = number if number not in ids.values() else max(*ids.values(), *part.category_ids) + 1
                extras[name] = extra
    # Classes stand in the order of their ids, as they are read.
    classes = sorted(ids, key=ids.__getitem__)
    result = []
    for part in parts:
        moved = [classes.index(name) for name in part.classes]
        result.append(
            dataclasses.replace(
                part,
                classes=tuple(classes),
                category_ids=tuple(ids[name] for name in classes),
                category_extra=tuple(extras[name] for name in classes),
                pictures=[_moved(picture, moved) for picture in part.pictures],
            )
        )
    return result


def rename_classes(part: Split, renamed: Mapping[str, str]) -> Split:
    """The part with classes renamed; two that get one name become one class."""
    names = [renamed.get(name, name) for name in part.classes]
    kept = list(dict.fromkeys(names))
    first = [names.index(name) for name in kept]
    return dataclasses.replace(
        part,
        classes=tuple(kept),
        category_ids=tuple(part.category_ids[i] for i in first),
        category_extra=tuple(part.category_extra[i] for i in first) if part.category_extra else (),
        pictures=[_moved(picture, [kept.index(name) for name in names]) for picture in part.pictures],
    )


def unique_ids(parts: Sequence[Split]) -> list[Split]:
    """The parts with ids that no two pictures, and no two annotations, of any part share.

    Ids stay if they are that already; else all are counted from 1.
    """
    pictures = [picture for part in parts for picture in part.pictures]
    picture_ids = _numbers([picture.id for picture in pictures])
    annotation_ids = _numbers([a.id for picture in pictures for a in picture.annotations])
    return [
        dataclasses.replace(
            part,
            pictures=[
                dataclasses.replace(
                    picture,
                    id=next(picture_ids),
                    annotations=[dataclasses.replace(a, id=next(annotation_ids)) for a in picture.annotations],
                )
                for picture in part.pictures
            ],
        )
        for part in parts
    ]


def _numbers(ids: Sequence[int]) -> Iterator[int]:
    # Readers give negative ids where a format has none.
    fine = len(set(ids)) == len(ids) and min(ids, default=0) >= 0
    return iter(ids if fine else range(1, len(ids) + 1))


def _moved(picture: Picture, moved: Sequence[int]) -> Picture:
    annotations: list[Annotation] = [dataclasses.replace(a, category=moved[a.category]) for a in picture.annotations]
    return dataclasses.replace(picture, annotations=annotations)


def _without(extra: Mapping[str, object], key: str) -> Mapping[str, object]:
    return {k: v for k, v in extra.items() if k != key}
