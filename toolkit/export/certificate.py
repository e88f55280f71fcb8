"""Every engine that is installed, held against the trained model when it is exported."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from paddle import nn

from toolkit.data.coco import Annotation, Split
from toolkit.data.detections import Floats, detect
from toolkit.data.images import read_rgb
from toolkit.data.preprocess import Prepared, Preprocess, steps_of
from toolkit.errors import UserError
from toolkit.evaluate.detect import network_of
from toolkit.export.rounding import measure_margin, uncertain_pixels
from toolkit.pipeline.backends.engines import ENGINES, load_engine
from toolkit.pipeline.certificate import Agreement, Certificate, average_precisions, check, run_each
from toolkit.pipeline.exported import Exported, read_exported
from toolkit.pipeline.sample import ROWS, Sample, write_detections, write_pictures
from toolkit.recipe import Recipe
from toolkit.serve.selftest import write_golden

NOISY = 2
"""On how many images it is measured how far rounding reaches."""


def certify(
    model: nn.Layer,
    folder: Path,
    pictures: Sequence[NDArray[np.uint8]],
    *,
    annotations: Sequence[Sequence[Annotation]] | None = None,
    recipe: Recipe,
    source: str,
) -> Certificate:
    """Run the trained `model` and what lies in `folder`, on every engine, over `pictures` (uint8 `[H, W, 3]`, RGB).

    Pictures, `annotations` and what the trained model found go into `folder`/sample, the result into
    `certificate.json`.

    Raises UserError, with the figures, if an engine of full precision differs.
    """
    exported = read_exported(folder)
    split = write_pictures(folder, pictures, annotations or [()] * len(pictures), classes=recipe.classes)
    model.eval()
    prepared = [_prepare(exported, read_rgb(picture.path), recipe) for picture in split.pictures]
    sample, ms = _find(model, split, prepared)
    write_detections(folder, sample)
    write_golden(folder, sample)
    backends: dict[str, Agreement] = {}
    for name, engine in ENGINES.items():
        if engine.lacks(exported, "cpu") is None:
            backends[name] = check(exported, sample, load_engine(exported, name), precision=engine.precision)
    ap = average_precisions(sample, sample.trained)
    certificate = Certificate(exported.model_name, len(pictures), source, round(ms, 1), ap and ap[0], backends)
    for name, agreement in backends.items():
        if agreement.precision == "f32" and not agreement.holds:
            raise UserError(
                f"{folder}: the exported model differs from the trained one on {name}: {agreement.describe()}"
            )
    certificate.write(folder)
    return certificate


def _find(model: nn.Layer, split: Split, images: Sequence[Prepared]) -> tuple[Sample, float]:
    """What the trained `model` finds in `images`, those of `split`, and its median time in ms."""
    network = network_of(model)
    margin = measure_margin(network, images[:NOISY])
    outputs: Sequence[NDArray[Any]] = ()

    def recorded(*inputs: Floats) -> Sequence[NDArray[Any]]:
        nonlocal outputs
        outputs = network(*inputs)
        return outputs

    frame = {"mask_frame": model.mask_frame, "mask_clip": model.mask_clip}
    trained, uncertain, times = [], [], []
    for image in images:
        [found], ms = run_each(lambda image: detect(recorded, [image], **frame)[0], [image])
        trained.append(found)
        uncertain.append(uncertain_pixels(outputs, image, margin=margin, limit=ROWS, **frame))
        times.append(ms)
    return Sample(split, trained, uncertain), statistics.median(times)


def _prepare(exported: Exported, rgb: NDArray[np.uint8], recipe: Recipe) -> Prepared:
    prepared = exported.preprocess(rgb)
    if not np.array_equal(Preprocess(steps_of(recipe.data), origin="recipe")(rgb).image, prepared.image):
        raise RuntimeError(f"{exported.folder}: inference.yml prepares pictures otherwise than the training did")
    return prepared
