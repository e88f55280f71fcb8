"""What a pipeline yields for one picture: a dict with PaddleX's keys, and ways to show and store it."""

from __future__ import annotations

import base64
import io
import json
import mimetypes
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from toolkit.data.detections import Detections
from toolkit.data.draw import draw_instances
from toolkit.data.masks import Crop, Rle, crop_to_rle, mask_to_polygons, rle_to_polygons
from toolkit.data.masks import full as whole
from toolkit.errors import UserError
from toolkit.pipeline.inputs import Picture, file_name, is_url

Mask = NDArray[np.uint8]


class Result(dict[str, Any]):
    """The instances of one picture, best first.

    Keys: `input_path` (None for an array), `page_index` (of a page or frame, counted from 0; None for a picture by
    itself), `input_img` (uint8 `[H, W, 3]`, BGR), `boxes`: `[{"cls_id", "label", "score", "coordinate": [x1, y1, x2,
    y2]}]` in pixels of the picture, and `masks`: for each box a uint8 array, the mask inside the box rounded to whole
    pixels.
    """

    def __init__(self, picture: Picture, found: Detections, labels: Sequence[str]) -> None:
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
            page_index=picture.page,
            input_img=cv2.cvtColor(picture.rgb, cv2.COLOR_RGB2BGR),
            boxes=boxes,
            masks=masks,
        )
        self._name = _name_of(picture)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the picture."""
        height, width, _ = self["input_img"].shape
        return height, width

    @property
    def stem(self) -> str:
        """Name of the input less its ending, with the number of page or frame; for an array, a name made up."""
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
            cv2.cvtColor(self["input_img"], cv2.COLOR_BGR2RGB),
            boxes=[_pixels(box) for box in self["boxes"]],
            masks=self["masks"],
            labels=[box["label"] for box in self["boxes"]],
            scores=[box["score"] for box in self["boxes"]],
            classes=[box["cls_id"] for box in self["boxes"]],
        )
        return {"res": Image.fromarray(drawn)}

    def masks(self, *, full: bool = True) -> list[Mask]:
        """The masks, each uint8 `[H, W]` of the picture's size, or with `full=False` as the key `masks` has them."""
        return [whole(crop, self.size) if full else crop.mask for crop in self._crops()]

    def to_rle(self) -> list[Rle]:
        """The masks, each a COCO RLE of the picture's size: `{"size": [H, W], "counts": str}`."""
        return [crop_to_rle(crop, self.size) for crop in self._crops()]

    def to_polygons(self, *, tolerance: float = 0.0) -> list[list[list[float]]]:
        """Of each instance its outlines, lists `x1, y1, x2, y2, ...` in pixels of the picture; holes are filled.

        Args:
            tolerance: how far, in pixels, an outline may leave the edges of the pixels, to need fewer points.
        """
        return [
            [polygon.tolist() for polygon in mask_to_polygons(crop.mask, x=crop.x, y=crop.y, tolerance=tolerance)]
            for crop in self._crops()
        ]

    def to_coco(self, *, image_id: int, category_ids: Sequence[int] | None = None) -> list[dict[str, Any]]:
        """The entries of a COCO results file, which pycocotools' `loadRes` takes: boxes as x, y, width, height, RLE.

        Args:
            image_id: the picture's id in the annotation file.
            category_ids: the id there of each class, in label order; by default they count from 1.
        """
        return [
            {
                "image_id": image_id,
                "category_id": category_ids[box["cls_id"]] if category_ids else box["cls_id"] + 1,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "score": box["score"],
                "segmentation": rle,
            }
            for box, rle in zip(self["boxes"], self.to_rle(), strict=True)
            for x1, y1, x2, y2 in [box["coordinate"]]
        ]

    def to_labelme(self) -> dict[str, Any]:
        """The content of a LabelMe file that lies beside the picture, to correct what was found by hand.

        A mask becomes polygons where they draw exactly its pixels, else (it has holes) a mask. The picture itself is
        inside where it is no file: an array, a page, a frame or from a URL.
        """
        # It brings the readers of all formats along.
        from toolkit.data.convert.labelme import labelme_tree

        in_file = self["input_path"] is not None and self["page_index"] is None and not is_url(self["input_path"])
        tree = labelme_tree(
            self._name if in_file else f"{self.stem}.png",
            self.size,
            labels=[box["label"] for box in self["boxes"]],
            segmentations=[rle_to_polygons(rle) or rle for rle in self.to_rle()],
        )
        return tree if in_file else {**tree, "imageData": _png(self["input_img"][..., ::-1])}

    def save_masks(self, save_path: str | Path) -> Path:
        """Write the masks as one PNG of the picture's size: 0 where nothing is, k where `boxes[k - 1]` is.

        Where instances overlap, the better one is seen. Of more than 255 instances the PNG has 16 bits.

        Args:
            save_path: the file, or a folder for `<input>_masks.png`.

        Raises UserError for a picture file of another kind.
        """
        path = self._target(save_path, "image/", "_masks.png")
        if path.suffix.lower() != ".png":
            raise UserError(f"{path}: masks are saved as PNG, which keeps their numbers; name a .png or a folder")
        ids = np.zeros(self.size, np.uint8 if len(self["boxes"]) < 256 else np.uint16)
        for number, crop in reversed(list(enumerate(self._crops(), start=1))):
            x1, y1, x2, y2 = crop.extent
            ids[y1:y2, x1:x2][crop.mask != 0] = number
        Image.fromarray(ids).save(path)
        return path

    def print(self, json_format: bool = False, indent: int = 4, ensure_ascii: bool = False) -> None:
        """Print everything but the masks."""
        shown = {"res": {**self._plain(), "masks": "..."}}
        print(json.dumps(shown, indent=indent, ensure_ascii=ensure_ascii) if json_format else shown)

    def save_to_json(self, save_path: str | Path, indent: int | None = 4, ensure_ascii: bool = False) -> Path:
        """Write the JSON to `save_path`, or, where that is a folder, to `<input>_res.json` in it; returns the file."""
        path = self._target(save_path, "application/json", "_res.json")
        masks = ",\n".join(_mask_as_json(mask) for mask in self["masks"])
        text = json.dumps({**self._plain(), "masks": []}, indent=indent, ensure_ascii=ensure_ascii)
        head, tail = text.rsplit("[]", 1)
        path.write_text(f"{head}[{masks}]{tail}", encoding="utf-8")
        return path

    def save_to_img(self, save_path: str | Path) -> Path:
        """Write the drawn picture to `save_path`, or, where that is a folder, to `<input>_res<ending>` in it."""
        path = self._target(save_path, "image/", f"_res{self.img_suffix}")
        # Only the lossy formats look at it.
        self.img["res"].save(path, quality=95)
        return path

    def save_all(self, save_path: str | Path) -> None:
        """Write both files into the folder `save_path`."""
        self.save_to_json(save_path)
        self.save_to_img(save_path)

    def _plain(self) -> dict[str, Any]:
        return {key: self[key] for key in ("input_path", "page_index", "boxes")}

    def _crops(self) -> list[Crop]:
        return [Crop(mask, *_pixels(box)[:2]) for box, mask in zip(self["boxes"], self["masks"], strict=True)]

    def _target(self, save_path: str | Path, kind: str, ending: str) -> Path:
        path = Path(save_path)
        if not _is(path.name, kind):
            path = path / f"{self.stem}{ending}"
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


def _name_of(picture: Picture) -> str:
    if picture.path is None:
        return f"{int(time.time())}_{random.randint(1000, 9999)}"
    name = file_name(picture.path) or "picture"
    return name if picture.page is None else f"{Path(name).stem}_{picture.page}{Path(name).suffix}"


def _png(rgb: NDArray[np.uint8]) -> str:
    stream = io.BytesIO()
    Image.fromarray(rgb).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode("ascii")


def _is(name: str, kind: str) -> bool:
    return (mimetypes.guess_type(name)[0] or "").startswith(kind)
