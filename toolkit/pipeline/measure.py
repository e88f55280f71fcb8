"""AP of an exported model, on any engine."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from toolkit.data.coco import Split
from toolkit.data.detections import Detections
from toolkit.data.images import read_rgb
from toolkit.data.tiling import detect_tiled
from toolkit.evaluate.ap import Metrics
from toolkit.evaluate.score import NOTHING, Extras, ground_truth, require_classes, score
from toolkit.pipeline.ordered import ordered
from toolkit.pipeline.predictor import READERS, Pipeline, create_pipeline
from toolkit.run import Run


def evaluate_exported(
    exported: Path,
    *,
    engine: str | None = None,
    device: str | None = None,
    tiling: str | None = None,
    batch_size: int | None = None,
    data: Path | None = None,
    run: Path | None = None,
    output: Path | None = None,
    extras: Extras = NOTHING,
) -> Metrics:
    """Measure an exported model on the validation pictures of `data`, or of the dataset of `run`.

    Args:
        run: by default the one that the folder lies in, else the newest.
        exported: its folder, also one that PaddleX exported, or a pipeline config.
        engine, device, tiling: see `create_pipeline`.
        batch_size: pictures, or tiles of one, that go through the model together.
        output: where `evaluate_result.json` goes; by default the working directory.

    Raises UserError if the model or the data cannot be had, or if their classes differ.
    """
    around = exported.resolve().parent
    own = Run(around) if (around / "recipe.yaml").is_file() else None
    split, limit = ground_truth(data, run or (own.path if own else None))
    pipeline = create_pipeline(exported, engine=engine, device=device, tiling=tiling)
    require_classes(split, pipeline.model.labels)
    name = f"{pipeline.model.model_name} on {pipeline.backend.name}"
    about = {"model": pipeline.model.model_name, "exported": str(exported), "engine": pipeline.backend.name}
    found = find_in(pipeline, split, limit=limit, at_once=batch_size or pipeline.batch_size)
    return score(
        found,
        split,
        name=name,
        about=about,
        folder=output or Path(),
        limit=limit,
        run=own,
        threshold=pipeline.model.threshold,
        extras=extras,
    )


def find_in(pipeline: Pipeline, split: Split, *, limit: int, at_once: int = 1) -> Iterator[tuple[int, Detections]]:
    """Yield (picture id, detections) for each picture of `split`: whatever its score, `limit` at most, masks whole."""
    pixels = ordered(read_rgb, [picture.path for picture in split.pictures], threads=READERS)
    run = partial(pipeline.backend, threshold=0.0)
    found = detect_tiled(run, pixels, pipeline.model.preprocess, pipeline.tiling, at_once=at_once)
    for picture, each in zip(split.pictures, found, strict=True):
        yield picture.id, each.best(limit)
