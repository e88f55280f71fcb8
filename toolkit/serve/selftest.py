"""Whether a loaded pipeline still finds what the trained model found: the export's sample picture, replayed."""

from __future__ import annotations

from toolkit.data.images import read_rgb
from toolkit.errors import UserError
from toolkit.pipeline.backends import ENGINES
from toolkit.pipeline.certificate import compare
from toolkit.pipeline.predictor import Pipeline
from toolkit.pipeline.sample import ROWS, read_sample

LEAST = 0.9
"""Part of the trained model's instances that must be found again."""


def self_test(pipeline: Pipeline) -> str:
    """Run the picture of the sample with the most instances; returns a line that tells how it went.

    Raises UserError if what is found differs.
    """
    exported, backend = pipeline.model, pipeline.backend
    sample = read_sample(exported.folder)
    if sample is None:
        return f"{exported.folder}: no sample to replay; an export by seg-tune has one"
    picture, trained = max(zip(sample.split.pictures, sample.trained, strict=True), key=lambda pair: len(pair[1]))
    found = backend([exported.preprocess(read_rgb(picture.path))], threshold=0.0)[0].best(ROWS)
    agreement = compare([trained], [found], precision=ENGINES[backend.name].precision)
    if agreement.matched < LEAST * agreement.rows:
        raise UserError(f"{exported.folder}: self-test failed on {backend.name}: {agreement.describe()}")
    return f"{backend.name}: {agreement.describe()}"
