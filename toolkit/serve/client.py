"""AP of a model behind an HTTP endpoint that keeps PaddleX's contract, be it this package's service or PaddleX's."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import numpy as np
from pydantic import ValidationError

from toolkit.data.coco import Picture, Split
from toolkit.data.detections import Detections
from toolkit.data.masks import Crop, MaskError, rle_to_crop
from toolkit.errors import UserError
from toolkit.evaluate.ap import Metrics
from toolkit.evaluate.score import NOTHING, Extras, ground_truth, score
from toolkit.pipeline.ordered import ordered
from toolkit.serve.schemas import InferResult, Instance

PLACE = "/instance-segmentation"
SECONDS = 120.0
"""How long an answer may take."""
AT_ONCE = 2
"""Requests under way; one travels while another is in the network."""


def evaluate_served(
    url: str,
    *,
    data: Path | None = None,
    run: Path | None = None,
    output: Path | None = None,
    extras: Extras = NOTHING,
) -> Metrics:
    """Measure what the service at `url` finds in the validation pictures of `data`, or of the dataset of `run`.

    Masks come cut to their box, as the contract has it. The environment's `SEG_TUNE_TOKEN` is sent as bearer token.

    Writes `evaluate_result.json` into `output`, by default the working directory.

    Raises UserError if the service cannot be reached, refuses a picture, or answers by another contract.
    """
    if not url.startswith(("http://", "https://")):
        raise UserError(f"--url {url}: must begin with http:// or https://, as in http://localhost:8080")
    split, limit = ground_truth(data, run)
    return score(
        ask_for(split, url.rstrip("/"), limit=limit),
        split,
        name=url,
        about={"url": url},
        folder=output or Path(),
        limit=limit,
        extras=extras,
    )


def ask_for(split: Split, url: str, *, limit: int = 100) -> Iterator[tuple[int, Detections]]:
    """Yield (picture id, detections) for each picture of `split`, as the service finds them, `limit` at most."""
    labels = {name: label for label, name in enumerate(split.classes)}
    found = ordered(partial(_ask, url=url, labels=labels), split.pictures, threads=AT_ONCE)
    for picture, each in zip(split.pictures, found, strict=True):
        yield picture.id, each.best(limit)


def _ask(picture: Picture, *, url: str, labels: Mapping[str, int]) -> Detections:
    place = f"{url}: {picture.file_name}"
    image = base64.b64encode(picture.path.read_bytes()).decode("ascii")
    tree = _post(f"{url}{PLACE}", {"image": image, "threshold": 0, "visualize": False}, place)
    try:
        instances = InferResult.model_validate(tree.get("result")).instances
    except (ValidationError, AttributeError) as error:
        raise UserError(f"{place}: not an answer by PaddleX's contract: {' '.join(str(error).split()):.150}") from None
    size = (picture.height, picture.width)
    instances.sort(key=lambda one: -one.score)
    return Detections(
        boxes=np.array([one.bbox for one in instances], np.float64).reshape(-1, 4),
        scores=np.array([one.score for one in instances], np.float64),
        labels=np.array([_label(one, labels, place) for one in instances], np.int64),
        masks=[_mask(one, size, place) for one in instances],
        size=size,
    )


def _post(url: str, body: Mapping[str, Any], place: str) -> Any:
    headers = {"Content-Type": "application/json"}
    if token := os.environ.get("SEG_TUNE_TOKEN"):
        headers["Authorization"] = f"Bearer {token}"
    try:
        with urlopen(Request(url, json.dumps(body).encode(), headers), timeout=SECONDS) as response:
            return json.load(response)
    except HTTPError as error:
        raise UserError(f"{place}: refused: HTTP {error.code} {_said(error)}") from None
    except (URLError, OSError) as error:
        reason = getattr(error, "reason", None) or error
        raise UserError(f"{place}: no answer ({reason}); is the service running there?") from None
    except ValueError:
        raise UserError(f"{place}: the answer is no JSON; is this the address of another service?") from None


def _said(error: HTTPError) -> str:
    try:
        return str(json.load(error)["errorMsg"])
    except (ValueError, KeyError, TypeError, OSError):
        return str(error.reason)


def _label(instance: Instance, labels: Mapping[str, int], place: str) -> int:
    if instance.categoryName not in labels:
        known = ", ".join(labels)
        raise UserError(f"{place}: finds {instance.categoryName}, which is no class of the data ({known:.200})")
    return labels[instance.categoryName]


def _mask(instance: Instance, size: tuple[int, int], place: str) -> Crop:
    """The mask on the picture of `size`; the service's is cut to the box rounded to whole pixels."""
    mask, (x, y) = instance.mask, map(round, instance.bbox[:2])
    if mask.rleResult is None or mask.size is None:
        raise UserError(f"{place}: a mask without rleResult and size; not an answer by PaddleX's contract")
    height, width = mask.size
    if x < 0 or y < 0 or x + width > size[1] or y + height > size[0]:
        raise UserError(
            f"{place}: a mask of {width} x {height} at {x}, {y} reaches out of the picture of {size[1]} x {size[0]}"
        )
    try:
        crop = rle_to_crop({"size": [height, width], "counts": mask.rleResult})
    except MaskError as error:
        raise UserError(f"{place}: rleResult: {error}") from None
    return Crop(crop.mask, crop.x + x, crop.y + y)
