"""From a run to a folder of the pictures that are most worth a look, for LabelMe."""

from __future__ import annotations

import heapq
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from toolkit.data.coco import Dataset, Picture, Split, dataset_of, find_dataset
from toolkit.data.convert.labelme import labelme_tree
from toolkit.data.folder import new_folder, write_json
from toolkit.data.images import read_header
from toolkit.data.loader import eval_batches
from toolkit.device import set_device
from toolkit.errors import UserError
from toolkit.evaluate.detect import detect
from toolkit.evaluate.score import require_classes
from toolkit.pipeline.inputs import list_inputs
from toolkit.review.merge import MANIFEST, NEW, UNDECIDED
from toolkit.review.rank import Judged, judge, weights_of
from toolkit.weights.fetch import sha256_of
from toolkit.weights.trained import load_trained

COUNT = 50
SHOWN = 3
"""Reasons on the screen, of a picture; all are in the manifest."""


def review_run(
    run: Path | None,
    out: Path,
    *,
    unlabelled: Path | None = None,
    data: Path | None = None,
    count: int = COUNT,
    threshold: float | None = None,
    device: str = "auto",
) -> list[Judged]:
    """Rank the validation pictures of a run's dataset, and those in a folder without annotations, by what looking at
    them is expected to bring (see `toolkit.review.rank`), and write the first `count` into the new folder `out`.

    Pictures are numbered from the best on, with a LabelMe file beside each. One that has annotations has these in its
    file, and what the model finds otherwise as suggestions, whose label ends in a question mark; one that has none has
    what the model finds. `merge_reviewed` takes in what comes back.

    Args:
        run: whose best model looks; the newest by default.
        data: another dataset; by default the run's.
        threshold: from which score a detection is shown; by default the recipe's.

    Raises UserError if the model or pictures cannot be had, or if there is nothing to look at.
    """
    set_device(device)
    elsewhere = find_dataset(data) if data else None
    trained = load_trained(run=run)
    recipe = trained.recipe
    dataset = elsewhere or dataset_of(recipe.data)
    require_classes(dataset.val, recipe.classes)
    least = recipe.predict.threshold if threshold is None else threshold
    parts = [(dataset.val, True)]
    if unlabelled is not None:
        parts.append((_unlabelled(unlabelled, dataset), False))

    def judged() -> Iterator[Judged]:
        weights = weights_of(dataset.train)
        for split, annotated in parts:
            pictures = {picture.id: picture for picture in split.pictures}
            found = detect(
                trained.model,
                eval_batches(split, recipe),
                limit=recipe.evaluate.max_detections,
                tiling=recipe.tiling,
            )
            shown = track(
                found,
                description=f"looking at {split.name}",
                total=len(pictures),
                console=Console(stderr=True),
                transient=True,
            )
            for picture_id, detections in shown:
                yield judge(
                    pictures[picture_id],
                    detections,
                    part=split.name,
                    annotated=annotated,
                    classes=recipe.classes,
                    weights=weights,
                    threshold=least,
                )

    best = heapq.nlargest(count, (one for one in judged() if one.points), key=lambda one: one.gain)
    if not best:
        raise UserError(
            f"nothing to look at: model and annotations agree, and no score is near {least}; try --threshold"
        )
    data_said = {"path": str(data.resolve())} if data else _absolute(recipe.data.model_dump(mode="json"))
    with new_folder(out) as folder:
        _write(best, folder, classes=recipe.classes, data=data_said)
    _tell(best, out)
    return best


def _unlabelled(folder: Path, dataset: Dataset) -> Split:
    """The pictures of a folder, but for those that are in the dataset, as a part without annotations."""
    if not folder.is_dir():
        raise UserError(f"--unlabelled {folder}: no such folder")
    known = {picture.path.resolve() for part in (dataset.train, dataset.val) for picture in part.pictures}
    pictures: list[Picture] = []
    for source in list_inputs(str(folder)):
        path = Path(source.value)
        if path.resolve() in known:
            continue
        try:
            height, width = read_header(path).displayed
        except UserError as error:
            Console(stderr=True).print(f"left out: {error}", markup=False, highlight=False, soft_wrap=True)
            continue
        name = path.relative_to(folder).as_posix()
        pictures.append(Picture(len(pictures), path, name, height, width, []))
    if not pictures:
        raise UserError(f"--unlabelled {folder}: all its pictures are in the dataset, or cannot be read")
    val = dataset.val
    return Split(NEW, folder, val.classes, val.category_ids, pictures)


def _absolute(data: dict[str, Any]) -> dict[str, str]:
    """Where the data lie, from everywhere."""
    places = {key: data[key] for key in ("path", "train_json", "val_json", "images")}
    return {key: str(Path(value).resolve()) for key, value in places.items() if value}


def _write(best: Sequence[Judged], folder: Path, *, classes: Sequence[str], data: dict[str, str]) -> None:
    entries = []
    for rank, one in enumerate(best, 1):
        picture = one.picture
        name = f"{rank:04}_{Path(picture.file_name).name}"
        file = folder / f"{rank:04}_{Path(picture.file_name).stem}.json"
        tree = labelme_tree(
            name,
            (picture.height, picture.width),
            labels=[shape.label + (UNDECIDED if shape.suggested else "") for shape in one.shapes],
            segmentations=[shape.segmentation for shape in one.shapes],
            crowds=[shape.crowd for shape in one.shapes],
            descriptions=[shape.note for shape in one.shapes],
        )
        write_json(file, tree)
        shutil.copyfile(picture.path, folder / name)
        entries.append(
            {
                "file": file.name,
                "sha256": sha256_of(file),
                "part": one.part,
                "picture": picture.file_name,
                "gain": round(one.gain, 4),
                "points": [{"gain": round(point.gain, 4), "text": point.text} for point in one.points],
            }
        )
    write_json(folder / MANIFEST, {"data": data, "pictures": entries})
    (folder / "labels.txt").write_text("".join(f"{name}\n" for name in classes), encoding="utf-8")


def _tell(best: Sequence[Judged], out: Path) -> None:
    console = Console(highlight=False, soft_wrap=True, markup=False)
    for rank, one in enumerate(best, 1):
        reasons = "; ".join(point.text for point in one.points[:SHOWN])
        more = f"; {len(one.points) - SHOWN} more" if len(one.points) > SHOWN else ""
        console.print(f"{rank:4} {one.gain:6.2f}  {one.part}: {one.picture.file_name}: {reasons}{more}")
    console.print(f"written to {out}: correct with `labelme {out} --labels {out / 'labels.txt'}`, then")
    console.print(f"seg-tune review --merge {out} --output NEW-DATASET")
