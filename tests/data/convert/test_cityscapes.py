from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.convert.datasets import mask_of, write
from toolkit.data.coco import find_dataset
from toolkit.data.convert import convert, reading
from toolkit.errors import UserError

IDS = np.zeros((20, 40), np.int32)
IDS[0:5] = 23  # sky, which has no instances
IDS[6:12, 2:8] = 24000
IDS[6:12, 10:16] = 26001
IDS[6:12, 20:30] = 26
IDS[15:18, 2:5] = 33012
IDS[15:18, 10:20] = 29000  # caravans are not evaluated


def dataset(root: Path) -> Path:
    for part, city in (("train", "aachen"), ("val", "ulm"), ("test", "bonn")):
        write(root / "leftImg8bit" / part / city / f"{city}_000000_000019_leftImg8bit.png", size=IDS.shape)
        if part != "test":
            mask = root / "gtFine" / part / city / f"{city}_000000_000019_gtFine_instanceIds.png"
            mask.parent.mkdir(parents=True)
            Image.fromarray(IDS.astype(np.uint16)).save(mask)
    return root


def test_objects_and_groups(tmp_path):
    with reading(dataset(tmp_path)) as (train, val):
        assert (train.name, val.name) == ("train", "val")
        assert val.pictures[0].file_name == "ulm/ulm_000000_000019_leftImg8bit.png"
        [picture] = train.pictures
        found = {(train.classes[a.category], a.iscrowd): mask_of(a, picture) for a in picture.annotations}
        assert set(found) == {("person", False), ("car", False), ("car", True), ("bicycle", False)}
        np.testing.assert_array_equal(found["car", False], IDS == 26001)
        np.testing.assert_array_equal(found["car", True], IDS == 26)
        assert len(train.classes) == 8
        assert "1 part whose annotations are not public (left out): test" in train.notes[0]


def test_what_is_written_is_what_training_takes(tmp_path):
    convert(dataset(tmp_path / "in"), tmp_path / "out")
    assert [len(split.pictures[0].annotations) for split in vars_of(find_dataset(tmp_path / "out"))] == [4, 4]


def vars_of(dataset):
    return dataset.train, dataset.val


def test_a_missing_mask_is_refused(tmp_path):
    dataset(tmp_path)
    next((tmp_path / "gtFine" / "val").rglob("*.png")).unlink()
    with pytest.raises(UserError, match=r"ulm_000000_000019_gtFine_instanceIds\.png: missing"), reading(tmp_path):
        pass


def test_a_mask_of_another_size_is_refused(tmp_path):
    dataset(tmp_path)
    Image.fromarray(IDS[:10].astype(np.uint16)).save(next((tmp_path / "gtFine" / "val").rglob("*.png")))
    with pytest.raises(UserError, match="is 40 x 20 pixels, but the annotations are for 40 x 10"), reading(tmp_path):
        pass
