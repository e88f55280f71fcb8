"""What is written and read again is what it was."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
from hypothesis import given, settings

from tests.data.convert.datasets import CLASSES, IDS, mask_of, on_disk, parts, pixel
from toolkit.data.convert import convert, reading
from toolkit.data.folder import write_coco
from toolkit.data.masks import rle_area, segmentation_to_rle

few = settings(max_examples=15)


def has_object(dataset):
    return any(not a.iscrowd for part in dataset for picture in part.pictures for a in picture.annotations)


@few
@given(parts())
def test_coco_keeps_everything(dataset):
    with tempfile.TemporaryDirectory() as folder:
        dataset = on_disk(dataset, Path(folder) / "pictures")
        write_coco(dataset, Path(folder) / "out")
        with reading(Path(folder) / "out") as again:
            assert [part.name for part in again] == [part.name for part in dataset]
            for part, old in zip(again, dataset, strict=True):
                assert (part.classes, part.category_ids, part.extra) == (CLASSES, IDS, old.extra)
                for picture, before in zip(part.pictures, old.pictures, strict=True):
                    assert (picture.id, picture.height, picture.width) == (before.id, before.height, before.width)
                    assert picture.extra == before.extra
                    assert pixel(picture.path) == pixel(before.path)
                    for a, b in zip(picture.annotations, before.annotations, strict=True):
                        np.testing.assert_equal(asdict(a), asdict(b))


@few
@given(parts())
def test_file_names_are_kept_and_differ_whatever_the_case_of_letters(dataset):
    with tempfile.TemporaryDirectory() as folder:
        write_coco(on_disk(dataset, Path(folder) / "pictures"), Path(folder) / "out")
        with reading(Path(folder) / "out") as again:
            names = [picture.file_name for part in again for picture in part.pictures]
            before = [picture.file_name for part in dataset for picture in part.pictures]
            assert len({name.casefold() for name in names}) == len(before)
            changed = [(new, old) for new, old in zip(names, before, strict=True) if new != old]
            assert all(old in ("a.png", "A.png") and new.casefold() == "a_2.png" for new, old in changed)


@few
@given(parts())
def test_through_labelme_and_back_masks_labels_crowds_and_negatives_stay(dataset):
    if not has_object(dataset):
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dataset = on_disk(dataset, folder / "pictures")
        write_coco(dataset, folder / "coco")
        convert(folder / "coco", folder / "labelme", to="labelme")
        convert(folder / "labelme", folder / "back")
        with reading(folder / "back") as again:
            assert [part.name for part in again] == [part.name for part in dataset]
            for part, old in zip(again, dataset, strict=True):
                assert part.classes == CLASSES
                assert len(part.pictures) == len(old.pictures)
                before = {pixel(picture.path): picture for picture in old.pictures}
                for picture in part.pictures:
                    twin = before.pop(pixel(picture.path))
                    assert (picture.height, picture.width) == (twin.height, twin.width)
                    for a, b in zip(picture.annotations, twin.annotations, strict=True):
                        assert (a.category, a.iscrowd) == (b.category, b.iscrowd)
                        if isinstance(b.segmentation, list):
                            np.testing.assert_equal(a.segmentation, b.segmentation)
                        np.testing.assert_array_equal(mask_of(a, picture), mask_of(b, twin))


@few
@given(parts())
def test_rle_to_polygons_and_back_draws_the_same_masks(dataset):
    if not has_object(dataset):
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_coco(on_disk(dataset, folder / "pictures"), folder / "coco")
        convert(folder / "coco", folder / "rle", masks="rle")
        convert(folder / "rle", folder / "polygons", masks="polygons")
        convert(folder / "polygons", folder / "back", masks="rle")
        with reading(folder / "rle") as rle, reading(folder / "polygons") as polygons, reading(folder / "back") as back:
            for before, between, after in zip(rle, polygons, back, strict=True):
                for a, b, c in zip(before.pictures, between.pictures, after.pictures, strict=True):
                    for x, y, z in zip(a.annotations, b.annotations, c.annotations, strict=True):
                        assert isinstance(x.segmentation, dict)
                        assert x.segmentation == z.segmentation
                        assert x.area == y.area == z.area
                        assert isinstance(y.segmentation, dict) or not y.iscrowd
                        size = (b.height, b.width)
                        assert segmentation_to_rle(y.segmentation, size) == x.segmentation
                        assert rle_area(x.segmentation)
