"""The commands on datasets, on disk: what they write is what training takes."""

from __future__ import annotations

import pytest

from tests.pictures import CLASSES, write_dataset
from toolkit.data.coco import find_dataset
from toolkit.data.prepare import merge_datasets, sample_dataset, split_dataset
from toolkit.errors import UserError


@pytest.fixture
def data(tmp_path):
    return write_dataset(tmp_path / "my data", train=8, val=4)


def counts(dataset):
    return len(dataset.train.pictures), len(dataset.val.pictures)


def test_split_writes_what_training_takes(data, tmp_path, capsys):
    split_dataset(data, tmp_path / "out", val=0.25, link=True)
    dataset = find_dataset(tmp_path / "out")
    assert counts(dataset) == (9, 3)
    assert dataset.train.classes == dataset.val.classes == CLASSES
    # The pictures of train and val have the same ids in the source.
    ids = [p.id for part in (dataset.train, dataset.val) for p in part.pictures]
    assert sorted(ids) == list(range(1, 13))
    said = capsys.readouterr().out
    assert "train: 9 pictures, 18 objects" in said
    assert f"written to {tmp_path / 'out'}" in said


def test_folds_are_datasets_of_their_own(data, tmp_path):
    split_dataset(data, tmp_path / "out", fold_count=3)
    found = [find_dataset(tmp_path / "out" / f"fold_{i}") for i in (1, 2, 3)]
    assert [counts(dataset) for dataset in found] == [(8, 4)] * 3
    assert len({p.file_name for dataset in found for p in dataset.val.pictures}) == 12


def test_a_split_that_leaves_nothing_is_refused_before_anything_is_read(tmp_path):
    with pytest.raises(UserError, match="--val and --test: leave nothing to train on"):
        split_dataset(tmp_path / "nowhere", tmp_path / "out", val=0.7, test=0.3)
    with pytest.raises(UserError, match="--folds 3: says how large val is"):
        split_dataset(tmp_path / "nowhere", tmp_path / "out", val=0.7, fold_count=3)


def test_merge_and_rename(data, tmp_path):
    other = write_dataset(tmp_path / "other", train=5, val=2, seed=1)
    merge_datasets([data, other], tmp_path / "out", renamed=["square=box"])
    dataset = find_dataset(tmp_path / "out")
    assert counts(dataset) == (13, 6)
    assert dataset.train.classes == ("disc", "box")
    assert len({p.file_name for p in dataset.train.pictures}) == 13
    for wrong, message in (("square", "must have the form OLD=NEW"), ("cube=box", "no class is called cube")):
        with pytest.raises(UserError, match=message):
            merge_datasets([data, other], tmp_path / "more", renamed=[wrong])
    assert not (tmp_path / "more").exists()


def test_sample(data, tmp_path):
    sample_dataset(data, tmp_path / "out", count=6)
    assert counts(find_dataset(tmp_path / "out")) == (4, 2)
