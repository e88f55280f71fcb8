"""What a pipeline yields for one picture: a dict with PaddleX's keys, and ways to show and store it."""

from __future__ import annotations

import json
import mimetypes
import random
import time
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from toolkit.data.detections import Detections
from toolkit.data.draw import draw_instances
from toolkit.data.masks import Crop, crop_to_rle
from toolkit.pipeline.inputs import Picture

Mask = NDArray[np.uint8]


class Result(dict[str, Any]):
    """The instances of one picture, best first.

    Keys: `input_path` (None for an array), `page_index` (None), `input_img` (uint8 `[H, W, 3]`, BGR),
    `boxes`: `[{"cls_id", "label", "score", "coordinate": [x1, y1, x2, y2]}]` in pixels of the picture, and
    `masks`: for each box a uint8 array, the mask inside the box rounded to whole pixels.
    """

    def __init__(self, picture: Picture, found: Detections, labels: list[str]) -> None:
        height, width = map(float, found.size)
        boxes: list[dict[str, Any]] = []
        masks: list[Mask] = []
        for box, score, label, crop in zip(
            found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), found.masks, strict=True
        ):
            x1, y1, x2, y2 = max(0.0, box[0]), max(0.0, box[1]), min(width, box[2]), min(height, box[3])
            if x1 >= x2 or y1 >= y2:
                continue
            boxes.append({"cls_id": label, "label": labels[label], "score": score, "coordinate": [x1, y1, x2, y2]})
            masks.append(_cut(crop, _pixels(boxes[-1])))
        super().__init__(
            input_path=picture.path,
            page_index=None,
            input_img=picture.rgb[..., ::-1],
            boxes=boxes,
            masks=masks,
        )
        self._name = _name_of(picture.path)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the picture."""
        height, width, _ = self["input_img"].shape
        return height, width

    @property
    def stem(self) -> str:
        """Name of the input less its ending; for an array, a name made up."""
        return Path(self._name).stem

    @property
    def img_suffix(self) -> str:
        """The ending of the saved picture: that of the input, where it is a picture's."""
        return Path(self._name).suffix if _is(self._name, "image/") else ".png"

    @property
    def json(self) -> dict[str, Any]:
        """`{"res": ...}` of plain Python values; a mask is a list of rows of 0 and 1."""
        return {"res": {**self._plain(), "masks": [mask.tolist() for mask in self["masks"]]}}

    @property
    def img(self) -> dict[str, Image.Image]:
        """`{"res": picture}` with the instances drawn on it."""
        drawn = draw_instances(
            np.ascontiguousarray(self["input_img"][..., ::-1]),
            boxes=[_pixels(box) for box in self["boxes"]],
            masks=self["masks"],
            labels=[box["label"] for box in self["boxes"]],
            scores=[box["score"] for box in self["boxes"]],
            classes=[box["cls_id"] for box in self["boxes"]],
        )
        return {"res": Image.fromarray(drawn)}

    def masks(self, *, full: bool = True) -> list[Mask]:
        """The masks, each uint8 `[H, W]` of the picture's size, or with `full=False` as the key `masks` has them."""
        if not full:
            return list(self["masks"])
        result = []
        for box, mask in zip(self["boxes"], self["masks"], strict=True):
            x1, y1, x2, y2 = _pixels(box)
            whole = np.zeros(self.size, np.uint8)
            whole[y1:y2, x1:x2] = mask
            result.append(whole)
        return result

    def to_rle(self) -> list[dict[str, Any]]:
        """The masks, each a COCO RLE of the picture's size: `{"size": [H, W], "counts": str}`."""
        return [
            crop_to_rle(Crop(mask, *_pixels(box)[:2]), self.size)
            for box, mask in zip(self["boxes"], self["masks"], strict=True)
        ]

    def print(self, json_format: bool = False, indent: int = 4, ensure_ascii: bool = False) -> None:
        """Print everything but the masks."""
        shown = {"res": {**self._plain(), "masks": "..."}}
        print(json.dumps(shown, indent=indent, ensure_ascii=ensure_ascii) if json_format else shown)

    def save_to_json(self, save_path: str | Path, indent: int | None = 4, ensure_ascii: bool = False) -> Path:
        """Write the JSON to `save_path`, or, where that is a folder, to `<input>_res.json` in it; returns the file."""
        path = self._target(save_path, "application/json", ".json")
        masks = ",\n".join(_mask_as_json(mask) for mask in self["masks"])
        text = json.dumps({**self._plain(), "masks": []}, indent=indent, ensure_ascii=ensure_ascii)
        head, tail = text.rsplit("[]", 1)
        path.write_text(f"{head}[{masks}]{tail}", encoding="utf-8")
        return path

    def save_to_img(self, save_path: str | Path) -> Path:
        """Write the drawn picture to `save_path`, or, where that is a folder, to `<input>_res<ending>` in it."""
        path = self._target(save_path, "image/", self.img_suffix)
        # Only the lossy formats look at it.
        self.img["res"].save(path, quality=95)
        return path

    def save_all(self, save_path: str | Path) -> None:
        """Write both files into the folder `save_path`."""
        self.save_to_json(save_path)
        self.save_to_img(save_path)

    def _plain(self) -> dict[str, Any]:
        return {key: self[key] for key in ("input_path", "page_index", "boxes")}

    def _target(self, save_path: str | Path, kind: str, suffix: str) -> Path:
        path = Path(save_path)
        if not _is(path.name, kind):
            path = path / f"{self.stem}_res{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def _pixels(box: dict[str, Any]) -> tuple[int, int, int, int]:
    x1, y1, x2, y2 = (round(side) for side in box["coordinate"])
    return x1, y1, x2, y2


def _cut(crop: Crop, box: tuple[int, int, int, int]) -> Mask:
    x1, y1, x2, y2 = box
    result = np.zeros((y2 - y1, x2 - x1), np.uint8)
    height, width = crop.mask.shape
    left, top = max(x1, crop.x), max(y1, crop.y)
    right, bottom = min(x2, crop.x + width), min(y2, crop.y + height)
    if left < right and top < bottom:
        inside = crop.mask[top - crop.y : bottom - crop.y, left - crop.x : right - crop.x]
        result[top - y1 : bottom - y1, left - x1 : right - x1] = inside
    return result


def _mask_as_json(mask: Mask) -> str:
    """`[[0,1],[1,1]]`, a row to a line: nobody can open a file with a pixel to a line, and json.dumps takes seconds."""
    height, width = mask.shape
    if not mask.size:
        return json.dumps(mask.tolist())
    text = np.full((height, 2 * width + 3), ord(","), np.uint8)
    text[:, 0] = ord("[")
    text[:, 1 : 2 * width : 2] = mask + ord("0")
    text[:, 2 * width] = ord("]")
    text[:, -1] = ord("\n")
    return f"[{text.tobytes()[:-2].decode('ascii')}]"


def _name_of(path: str | None) -> str:
    if path is None:
        return f"{int(time.time())}_{random.randint(1000, 9999)}"
    name = unquote(urlsplit(path).path) if path.lower().startswith(("http://", "https://")) else path
    return Path(name).name or "picture"


def _is(name: str, kind: str) -> bool:
    return (mimetypes.guess_type(name)[0] or "").startswith(kind)
