"""From a PaddleDetection config: where the pictures are, and what is done to them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toolkit.migrate.config import Config

_INTERPOLATIONS = {0: "nearest", 1: "linear", 2: "cubic", 3: "area"}
_DONE = {
    *(
        "Decode",
        "Permute",
        "Poly2Mask",
        "PadGT",
        "PadBatch",
        "NormalizeBox",
        "BboxXYXY2XYWH",
        "PadMaskBatch",
        "RGBReverse",
    ),
    *("Gt2Solov2Target",),
}
"""Steps that are part of every training here, or of the model."""
_PARTS = ("TrainDataset", "EvalDataset")


def set_data(config: Config, changes: dict[str, Any]) -> None:
    """The places of the annotations and pictures."""
    if not {config.peek(f"{part}.name") for part in _PARTS} <= {None, "COCODataSet", "COCOInstSegDataset"}:
        return
    keys = ("dataset_dir", "image_dir", "anno_path")
    train, val = ({key: str(config.peek(f"{part}.{key}") or "").rstrip("/") for key in keys} for part in _PARTS)
    for part in _PARTS:
        for key in ("name", "dataset_dir", "anno_path"):
            config.take(f"{part}.{key}")
    if train["dataset_dir"] and train["dataset_dir"] == val["dataset_dir"]:
        changes["data.path"] = train["dataset_dir"]
        if _is_usual(train, val):
            config.drop("*Dataset.image_dir")
            return
    if train["anno_path"] and val["anno_path"]:
        changes["data.train_json"] = str(Path(train["dataset_dir"]) / train["anno_path"])
        changes["data.val_json"] = str(Path(val["dataset_dir"]) / val["anno_path"])
    if train["image_dir"] == val["image_dir"] and train["image_dir"]:
        changes["data.images"] = str(Path(train["dataset_dir"]) / train["image_dir"])
        config.drop("*Dataset.image_dir")
    else:
        for part in _PARTS:
            config.note(f"{part}.image_dir", "pictures of both parts start from one folder here, data.images")


def _is_usual(train: Mapping[str, str], val: Mapping[str, str]) -> bool:
    """Whether `--data` alone finds it: COCO's or PaddleX's layout."""
    year = train["anno_path"].removeprefix("annotations/instances_train").removesuffix(".json")
    coco = [f"annotations/instances_{name}{year}.json" for name in ("train", "val")]
    files = [train["anno_path"], val["anno_path"]]
    folders = [train["image_dir"], val["image_dir"]]
    paddlex = [f"annotations/instance_{name}.json" for name in ("train", "val")]
    return (files == coco and folders == [f"train{year}", f"val{year}"]) or (
        files == paddlex and folders == ["images", "images"]
    )


def set_pictures(config: Config, changes: dict[str, Any]) -> None:
    """Preprocessing from the evaluation's reader, sizes and augmentation from the training's."""
    for entry, place in _steps(config, "EvalReader"):
        name, said = entry
        if name == "Resize":
            changes["data.input_size"] = _sides(said.pop("target_size", None)) or changes.get("data.input_size")
            changes["data.keep_ratio"] = bool(said.pop("keep_ratio", True))
            _interpolation(said, changes)
        elif name == "NormalizeImage":
            plain = said.pop("norm_type", "mean_std") == "none"
            changes["data.mean"] = [0.0] * 3 if plain else said.pop("mean", [0.485, 0.456, 0.406])
            changes["data.std"] = [1.0] * 3 if plain else said.pop("std", [0.229, 0.224, 0.225])
            if said.pop("is_scale", True):
                said = {}
        elif name in _DONE:
            said = {}
        elif not said:
            said = {"": ""}
        _lose(config, place, f"EvalReader: {name}", said)
    if changes.get("data.input_size", 0) is None:
        del changes["data.input_size"]
    transforms: list[dict[str, Any]] = []
    sizes: list[int] = []
    for (name, said), place in _steps(config, "TrainReader"):
        rest = said
        if name in ("RandomResize", "BatchRandomResize"):
            sizes, rest = _sizes(said, changes)
        elif name == "Resize":
            same = _sides(said.pop("target_size", None)) == changes.get("data.input_size")
            rest = {} if same else {"target_size": "not that of the evaluation"}
        elif name in _MAPPED:
            made, rest = _MAPPED[name](said)
            transforms.append(made)
        elif name in _DONE or name == "NormalizeImage":
            rest = {}
        elif not rest:
            rest = {"": ""}
        _lose(config, place, f"TrainReader: {name}", rest)
    changes["data.train_sizes"] = sizes
    changes["data.train_transforms"] = transforms


def _steps(config: Config, reader: str) -> list[tuple[tuple[str, dict[str, Any]], str]]:
    found = []
    for key in ("sample_transforms", "batch_transforms"):
        for entry, place in config.take_list(f"{reader}.{key}"):
            for name, said in entry.items() if isinstance(entry, dict) else [(str(entry), None)]:
                found.append(((name, dict(said or {})), place))
    return found


def _lose(config: Config, place: str, name: str, rest: Mapping[str, Any]) -> None:
    for key, value in rest.items():
        config.lose(place, f"{name}.{key}: {value}" if key else name)


def _sides(value: Any) -> list[int] | None:
    if isinstance(value, int):
        return [value, value]
    return list(value) if isinstance(value, list) and len(value) == 2 else None


def _interpolation(said: dict[str, Any], changes: dict[str, Any]) -> None:
    if said.get("interp", 1) in _INTERPOLATIONS:
        changes["data.interpolation"] = _INTERPOLATIONS[said.pop("interp", 1)]


def _sizes(said: dict[str, Any], changes: dict[str, Any]) -> tuple[list[int], dict[str, Any]]:
    """Sides to draw from, short ones where the ratio is kept; the rest has no counterpart."""
    sides = said.pop("target_size", [])
    sides = sides if isinstance(sides, list) else [sides]
    keep = bool(said.pop("keep_ratio", True))
    for key in ("interp", "random_size", "random_range"):
        if said.get(key) in (True, False, 0, 1, 2, 3) and not (key == "random_range" and said[key]):
            said.pop(key)
    if said.get("random_interp") is False:
        said.pop("random_interp")
    size = changes.get("data.input_size")
    if keep != changes.get("data.keep_ratio", keep):
        return [], {**said, "keep_ratio": f"{keep}, and not in the evaluation"}
    if all(isinstance(side, int) for side in sides):
        return sides, said
    longest = max(size) if size else None
    if not all(isinstance(side, list) and len(side) == 2 for side in sides):
        return [], {**said, "target_size": sides}
    if any((max(side) != longest) if keep else (side[0] != side[1]) for side in sides):
        said = {**said, "target_size": f"{sides} (only the short side changes here, or squares)"}
    return [min(side) for side in sides], said


def _flip(said: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    return {"HorizontalFlip": {"p": said.pop("prob", 0.5)}}, said


def _expand(said: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    fill = said.pop("fill_value", 127.5)
    colour = list(map(float, fill)) if isinstance(fill, list) else [float(fill)] * 3
    made = {"ratio": [1.0, float(said.pop("ratio", 4.0))], "fill": colour, "p": said.pop("prob", 0.5)}
    return {"Expand": made}, said


def _crop(said: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    made = {
        "scaling": said.pop("scaling", [0.3, 1.0]),
        "aspect": said.pop("aspect_ratio", [0.5, 2.0]),
        "overlaps": said.pop("thresholds", [0.0, 0.1, 0.3, 0.5, 0.7, 0.9]),
        "attempts": said.pop("num_attempts", 50),
        "p": said.pop("prob", 1.0),
    }
    # Masks are always cut along; a picture without a fitting crop stays whole.
    for key, usual in (("is_mask_crop", (True, False)), ("allow_no_crop", (True,)), ("cover_all_box", (False,))):
        if said.get(key, usual[0]) in usual:
            said.pop(key, None)
    return {"InstanceCrop": made}, said


def _distort(said: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Each of the four there has a probability of its own, usually a half; here they come together."""
    made: dict[str, Any] = {}
    for key in ("brightness", "contrast", "saturation"):
        made[key] = list(said.pop(key, [0.5, 1.5]))[:2]
    low, high = list(said.pop("hue", [-18, 18]))[:2]
    made["hue"] = [round(low / 360, 4), round(high / 360, 4)]
    made["p"] = said.pop("prob", 0.8)
    for key in ("random_apply", "count", "random_channel"):
        if said.get(key) in (True, 4, False):
            said.pop(key)
    return {"ColorJitter": made}, said


_MAPPED = {"RandomFlip": _flip, "RandomExpand": _expand, "RandomCrop": _crop, "RandomDistort": _distort}
