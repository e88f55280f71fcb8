"""From a trained model to a folder that runs, with its certificate, its card and its pipeline config."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from paddle import nn
from rich.console import Console

from toolkit.data.coco import Annotation, Picture, Split, dataset_of, find_dataset
from toolkit.data.images import read_rgb
from toolkit.data.tiling import cut, windows_of
from toolkit.device import set_device
from toolkit.errors import UserError
from toolkit.export.card import write_card
from toolkit.export.certificate import certify
from toolkit.export.int8 import save_int8
from toolkit.export.onnx import missing_converter, save_onnx
from toolkit.export.static import save_program, write_description
from toolkit.pipeline.certificate import Certificate
from toolkit.pipeline.config import NAME, dump_pipeline_config
from toolkit.pipeline.exported import read_exported
from toolkit.places import require_writable, writing
from toolkit.recipe import Recipe
from toolkit.weights.trained import Trained, load_trained

PICTURES = 16
"""On how many pictures the exported model is held against the trained one, where nothing else is said."""
CALIBRATION = 64
"""On how many the ranges of 8-bit numbers are measured."""


@dataclass(frozen=True)
class Export:
    """What an export has written."""

    folder: Path
    certificate: Certificate
    config: Path | None
    """The pipeline config, where one was asked for."""


def export_trained(
    *,
    run: Path | None = None,
    weights: Path | None = None,
    model: str | None = None,
    data: Path | None = None,
    output: Path | None = None,
    to_pipeline_config: bool = False,
    config: Path | None = None,
    pictures: int = PICTURES,
    int8: bool = False,
) -> Export:
    """Export a run's best model (the newest run's where nothing is named), or the one in a weights file.

    Args:
        data: a dataset whose validation pictures the export is checked on, and whose classes weights outside a run
            take; by default the one the run was trained on.
        output: the folder to write; by default `inference` in the run, or beside the weights. An older export there
            is replaced once the new one has been checked.
        to_pipeline_config: write a pipeline config too, to `config`, by default beside the folder.
        pictures: on how many validation pictures the export is checked; they go into its folder `sample`.
        int8: write `inference.int8.onnx` too, by quantisation on validation pictures.

    Raises UserError if there is no such model, if `output` is something else than an export, or if the exported model
    differs from the trained one; then an older export stays.
    """
    if config is not None and not to_pipeline_config:
        raise UserError(f"{config}: a place for the pipeline config is given, but not --to-pipeline-config")
    set_device("cpu")
    elsewhere = find_dataset(data) if data else None
    trained = load_trained(run=run, weights=weights, model=model, classes=elsewhere.val.classes if elsewhere else ())
    folder = output or _beside(trained)
    written = (config or folder.parent / f"{NAME}.yaml") if to_pipeline_config else None
    if written:
        require_writable(written.parent, advice=f"name another place: --to-pipeline-config {NAME}.yaml")
    console = Console(highlight=False, soft_wrap=True)

    missing = missing_converter()
    if int8 and missing:
        raise UserError(f"--int8: {missing}")
    split = elsewhere.val if elsewhere else _split_of(trained.recipe)
    if int8 and split is None:
        raise UserError("--int8: needs validation pictures, and the dataset of the run is not at hand; name it: --data")
    chosen = _spaced(split, pictures) if split else []
    certificate = export_model(
        trained.model,
        recipe=trained.recipe,
        out=folder,
        pictures=[_read(picture, trained.recipe) for picture in chosen] or _generated(),
        # Those of tiles would have to be cut.
        annotations=None if trained.recipe.tiling else [picture.annotations for picture in chosen] or None,
        source="validation" if chosen else "generated, since the dataset is not at hand",
        calibration=(_read(picture, trained.recipe) for picture in _spaced(split, CALIBRATION))
        if int8 and split
        else None,
        run=_run_of(trained),
    )
    if missing:
        console.print(f"no inference.onnx: {missing}; predictions run on Paddle")
    for engine, agreement in certificate.backends.items():
        verdict = "" if agreement.holds else "; differs too much, and runs only if asked for by name"
        console.print(f"{engine}: {agreement.describe()}, {agreement.ms_per_picture:.0f} ms a picture{verdict}")
    if not certificate.learnt:
        console.print(f"warning: {certificate.warning()}")
    console.print(f"exported to {folder}")

    if written:
        threshold = trained.recipe.predict.threshold
        text = dump_pipeline_config(model_name=trained.recipe.model.name, model_dir=folder, threshold=threshold)
        with writing(written):
            written.parent.mkdir(parents=True, exist_ok=True)
            written.write_text(text, encoding="utf-8")
        console.print(f"pipeline config written to {written} (it holds the absolute path of the folder)")
    return Export(folder, certificate, written)


def export_model(
    model: nn.Layer,
    *,
    recipe: Recipe,
    out: Path,
    pictures: Sequence[NDArray[np.uint8]],
    source: str,
    annotations: Sequence[Sequence[Annotation]] | None = None,
    calibration: Iterable[NDArray[np.uint8]] | None = None,
    run: Path | None = None,
) -> Certificate:
    """Write `model` into the folder `out`, with the classes and the preprocessing of `recipe`, and check it.

    It is left in eval mode.

    Everything is written into a folder beside `out` that takes its name in the end; on failure `out` is untouched.

    Args:
        pictures: uint8 `[H, W, 3]`, RGB, on which trained and exported model are compared; `source`: whence they are.
        annotations: of each of them; None where there are none, and then no AP is measured.
        calibration: pictures by which the 8-bit graph is made; None for no such graph.
        run: the folder of the training run, whose figures the card shows.
    """
    with _replacing(out) as folder:
        save_program(model, folder, data=recipe.data)
        if not missing_converter():
            save_onnx(model, folder, data=recipe.data)
        write_description(folder, recipe=recipe, mask_frame=model.mask_frame, mask_clip=model.mask_clip)
        if calibration is not None:
            save_int8(read_exported(folder), calibration)
        certificate = certify(model, folder, pictures, annotations=annotations, recipe=recipe, source=source)
        write_card(folder, recipe=recipe, certificate=certificate, run=run)
    return certificate


@contextmanager
def _replacing(out: Path) -> Iterator[Path]:
    """A new folder beside `out` that replaces it when the block ends well, and is gone when it does not."""
    if out.exists() and not (out / "inference.yml").is_file() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: exists and is not an exported model; choose another --output")
    new, old = out.with_name(f".{out.name}.new"), out.with_name(f".{out.name}.old")
    shutil.rmtree(new, ignore_errors=True)
    with writing(out):
        new.mkdir(parents=True)
    try:
        yield new
        shutil.rmtree(old, ignore_errors=True)
        if out.exists():
            out.rename(old)
        new.rename(out)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        if old.exists() and not out.exists():
            old.rename(out)
        shutil.rmtree(new, ignore_errors=True)


def _beside(trained: Trained) -> Path:
    return (_run_of(trained) or trained.weights.parent) / "inference"


def _run_of(trained: Trained) -> Path | None:
    return trained.weights.parents[1] if trained.weights.parent.name == "best_model" else None


def _split_of(recipe: Recipe) -> Split | None:
    try:
        return dataset_of(recipe.data).val
    except UserError:
        return None


def _spaced(split: Split, count: int) -> list[Picture]:
    """At most `count` pictures of the split, evenly spaced."""
    total = len(split.pictures)
    return [split.pictures[i] for i in sorted({i * total // count for i in range(count)})]


def _read(picture: Picture, recipe: Recipe) -> NDArray[np.uint8]:
    """What the network sees at once of a picture: all of it, or a tile from its middle."""
    rgb = read_rgb(picture.path)
    windows = windows_of((picture.height, picture.width), recipe.tiling)
    return cut(rgb, windows[len(windows) // 2])


def _generated() -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(0)
    sizes = [(240, 320), (321, 200), (180, 180), (97, 251)]
    return [
        cv2.resize(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
        for height, width in sizes
    ]
