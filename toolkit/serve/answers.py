"""From a pipeline's result to what goes over the wire."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

from toolkit.data.masks import mask_to_polygons, mask_to_rle
from toolkit.pipeline.result import Result
from toolkit.serve.schemas import MaskFormat


def as_result(result: Result, *, mask_format: MaskFormat, visualize: bool) -> dict[str, Any]:
    """An `InferResult` as plain data."""
    masks = _masks(result, mask_format)
    instances = [
        {
            "bbox": box["coordinate"],
            "categoryId": box["cls_id"],
            "categoryName": box["label"],
            "score": box["score"],
            "mask": mask,
        }
        for box, mask in zip(result["boxes"], masks, strict=True)
    ]
    return (
        {"instances": instances, "image": _file(result.img["res"], "JPEG")} if visualize else {"instances": instances}
    )


def _masks(result: Result, mask_format: MaskFormat) -> list[dict[str, Any]]:
    if mask_format == "full":
        return [{"rleResult": rle["counts"], "size": rle["size"]} for rle in result.to_rle()]
    cut = result.masks(full=False)
    if mask_format == "box":
        return [{"rleResult": mask_to_rle(mask)["counts"], "size": list(mask.shape)} for mask in cut]
    if mask_format == "png":
        return [{"png": _file(Image.fromarray(255 * mask), "PNG"), "size": list(mask.shape)} for mask in cut]
    corners = [(round(box["coordinate"][0]), round(box["coordinate"][1])) for box in result["boxes"]]
    return [
        {"polygons": [polygon.tolist() for polygon in mask_to_polygons(np.ascontiguousarray(mask), x=x, y=y)]}
        for mask, (x, y) in zip(cut, corners, strict=True)
    ]


def _file(image: Image.Image, kind: str) -> str:
    stream = io.BytesIO()
    image.save(stream, kind, quality=90)
    return base64.b64encode(stream.getvalue()).decode("ascii")
