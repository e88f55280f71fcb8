"""The golden request: a picture of the export's sample, and what the trained model would have the service answer.

It lies in the exported folder as JSON, for clients to try themselves on, and a loaded pipeline is held against it.
"""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from toolkit.data.detections import Detections
from toolkit.data.images import decode_rgb, read_rgb
from toolkit.data.masks import Crop, MaskError, rle_to_mask
from toolkit.errors import UserError
from toolkit.pipeline.backends import ENGINES
from toolkit.pipeline.certificate import HARDLY, compare, read_agreements
from toolkit.pipeline.inputs import Picture
from toolkit.pipeline.predictor import Pipeline
from toolkit.pipeline.result import Result
from toolkit.pipeline.sample import FOLDER, Sample
from toolkit.serve.answers import as_result
from toolkit.serve.schemas import Answer, InferRequest, InferResult, answer

REQUEST, ANSWER = "request.json", "answer.json"
LEAST = 0.9
"""Part of the trained model's instances that must be found again; `HARDLY` where it has hardly learned."""


def write_golden(folder: Path, sample: Sample) -> None:
    """Write the request for the picture of `sample` with the most instances, and its answer, into `folder`/sample."""
    picture, trained = max(zip(sample.split.pictures, sample.trained, strict=True), key=lambda pair: len(pair[1]))
    found = Result(Picture(read_rgb(picture.path), None), trained, sample.split.classes)
    # Of all that is found, however little a model of few steps is sure of it.
    request = {
        "image": base64.b64encode(picture.path.read_bytes()).decode("ascii"),
        "threshold": 0.0,
        "visualize": False,
        "logId": "golden",
    }
    tree = answer("golden", result=as_result(found, mask_format="box", visualize=False))
    for name, content in ((REQUEST, request), (ANSWER, tree)):
        (folder / FOLDER / name).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def self_test(pipeline: Pipeline) -> str:
    """Replay the golden request; returns a line that tells how it went.

    Raises UserError if the answer differs, or the files cannot be read.
    """
    exported, engine = pipeline.model, pipeline.backend.name
    place = exported.folder / FOLDER
    if not (place / ANSWER).is_file():
        return f"{exported.folder}: no sample to replay; an export by seg-tune has one"
    try:
        request = InferRequest.model_validate_json((place / REQUEST).read_bytes())
        expected = _detections(Answer.model_validate_json((place / ANSWER).read_bytes()).result)
        rgb = decode_rgb(base64.b64decode(request.pictures[0]), name=place / REQUEST)
    except (OSError, ValidationError, MaskError, ValueError) as error:
        raise UserError(f"{place}: not readable ({' '.join(str(error).split()):.80}); export the model again") from None
    [result] = pipeline.find([Picture(rgb, None)], threshold=request.threshold)
    found = as_result(result, mask_format=request.maskFormat, visualize=False)
    agreement = compare([expected], [_detections(InferResult(**found))], precision=ENGINES[engine].precision)
    learnt = all(known.learnt for known in read_agreements(exported).values())
    agreement = replace(agreement, learnt=learnt)
    if agreement.missing > (1 - (LEAST if learnt else HARDLY)) * agreement.rows:
        raise UserError(f"{exported.folder}: self-test failed on {engine}: {agreement.describe()}")
    return f"{engine}: {agreement.describe()}"


def _detections(result: object) -> Detections:
    """The instances of an answer."""
    if not isinstance(result, InferResult):
        raise ValueError("no result of one picture")
    rows = result.instances
    rles = [{"size": list(row.mask.size or ()), "counts": row.mask.rleResult} for row in rows]
    return Detections(
        boxes=np.array([row.bbox for row in rows], np.float32).reshape(-1, 4),
        scores=np.array([row.score for row in rows], np.float32),
        labels=np.array([row.categoryId for row in rows], np.int64),
        masks=[Crop(rle_to_mask(rle), *map(round, row.bbox[:2])) for rle, row in zip(rles, rows, strict=True)],
        size=(0, 0),
    )
