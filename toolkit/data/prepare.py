"""Datasets on disk made from others: divided, joined, made smaller. Each reads every format and writes COCO."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from toolkit.data.convert import reading, report, require_objects
from toolkit.data.folder import new_folder, write_coco
from toolkit.data.merge import merge, rename_classes
from toolkit.data.split import folds, sample, split
from toolkit.errors import UserError


def split_dataset(
    source: Path,
    out: Path,
    *,
    val: float | None = None,
    test: float | None = None,
    fold_count: int | None = None,
    group: str | None = None,
    seed: int = 0,
    link: bool = False,
) -> None:
    """Divide all pictures of the dataset at `source` anew and write them into the new folder `out`.

    Args:
        val, test: their shares of the pictures, by default a fifth and none; the rest is to train on.
        fold_count: write that many folders `fold_1`, ... instead, in which each picture is once in val.
        group: see `toolkit.data.split.split`.
        link: give the pictures a second name instead of copying them.

    Raises UserError.
    """
    if fold_count is not None and (val is not None or test is not None):
        raise UserError(f"--folds {fold_count}: says how large val is; leave out --val and --test")
    shares = {"val": 0.2 if val is None else val, "test": test or 0.0}
    if sum(shares.values()) >= 1:
        raise UserError("--val and --test: leave nothing to train on; they must sum to less than 1")
    shares = {"train": 1 - sum(shares.values()), **{name: share for name, share in shares.items() if share}}
    with new_folder(out) as folder, reading(source) as parts:
        if fold_count is None:
            written = {"": split(parts, shares, seed=seed, group=group)}
        else:
            divided = folds(parts, fold_count, seed=seed, group=group)
            written = {f"fold_{number}": fold for number, fold in enumerate(divided, 1)}
        for name, dataset in written.items():
            write_coco(dataset, folder / name, link=link)
    for name, dataset in written.items():
        report(dataset, out / name)


def merge_datasets(sources: Sequence[Path], out: Path, *, renamed: Sequence[str] = (), link: bool = False) -> None:
    """Write the datasets at `sources` as one into the new folder `out`; parts of one name and classes of one name join.

    Args:
        renamed: `OLD=NEW` for classes that get another name first.

    Raises UserError.
    """
    names = {}
    for text in renamed:
        old, equals, new = (piece.strip() for piece in text.partition("="))
        if not (old and equals and new):
            raise UserError(f"--rename {text}: must have the form OLD=NEW")
        names[old] = new
    with ExitStack() as stack:
        folder = stack.enter_context(new_folder(out))
        datasets = [stack.enter_context(reading(source)) for source in sources]
        known = {name for dataset in datasets for part in dataset for name in part.classes}
        for old in names:
            if old not in known:
                raise UserError(f"--rename {old}={names[old]}: no class is called {old} ({', '.join(sorted(known))})")
        renamed_ones = [[rename_classes(part, names) for part in dataset] for dataset in datasets]
        merged = require_objects(merge(renamed_ones), out)
        write_coco(merged, folder, link=link)
    report(merged, out)


def sample_dataset(source: Path, out: Path, *, count: int, seed: int = 0, link: bool = False) -> None:
    """Write `count` pictures of the dataset at `source` into the new folder `out`.

    Raises UserError.
    """
    with new_folder(out) as folder, reading(source) as parts:
        chosen = sample(parts, count, seed=seed)
        write_coco(chosen, folder, link=link)
    report(chosen, out)
