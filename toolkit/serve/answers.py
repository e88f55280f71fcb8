"""From a pipeline's result to what goes over the wire."""

from __future__ import annotations

import base64
import io
from typing import Any

from PIL import Image

from toolkit.data.masks import mask_to_rle
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
    if mask_format == "polygon":
        return [{"polygons": polygons} for polygons in result.to_polygons()]
    if mask_format == "full":
        return [{"rleResult": rle["counts"], "size": rle["size"]} for rle in result.to_rle()]
    cut = result.masks(full=False)
    if mask_format == "box":
        return [{"rleResult": mask_to_rle(mask)["counts"], "size": list(mask.shape)} for mask in cut]
    return [{"png": _file(Image.fromarray(255 * mask), "PNG"), "size": list(mask.shape)} for mask in cut]


def _file(image: Image.Image, kind: str) -> str:
    stream = io.BytesIO()
    image.save(stream, kind, quality=90)
    return base64.b64encode(stream.getvalue()).decode("ascii")
