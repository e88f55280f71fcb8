"""Which of the sixteen models a PaddleDetection config is about, and what of the network it says otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from toolkit.errors import UserError
from toolkit.migrate.config import Config

COMPONENTS = {
    "MaskRCNN": {
        "backbone": "ResNet",
        "rpn_head": "RPNHead",
        "bbox_head": "BBoxHead",
        "mask_head": "MaskHead",
        "bbox_post_process": "BBoxPostProcess",
        "mask_post_process": "MaskPostProcess",
    },
    "CascadeRCNN": {
        "backbone": "ResNet",
        "neck": "FPN",
        "rpn_head": "RPNHead",
        "bbox_head": "CascadeHead",
        "mask_head": "MaskHead",
        "bbox_post_process": "BBoxPostProcess",
        "mask_post_process": "MaskPostProcess",
    },
    "SOLOv2": {"backbone": "ResNet", "neck": "FPN", "solov2_head": "SOLOv2Head", "mask_head": "SOLOv2MaskHead"},
    "PPYOLOE": {"backbone": "CSPResNet", "neck": "CustomCSPPAN", "yolo_head": "PPYOLOEInsHead"},
    "DETR": {
        "backbone": "PPHGNetV2",
        "neck": "MaskHybridEncoder",
        "transformer": "MaskRTDETR",
        "detr_head": "MaskDINOHead",
        "post_process": "DETRPostProcess",
    },
}
"""The parts that each family is made of."""
_RESNETS = {
    ("MaskRCNN", 50, "b", 1, "FPN"): "MaskRCNN-ResNet50-FPN",
    ("MaskRCNN", 50, "b", 1, None): "MaskRCNN-ResNet50",
    ("MaskRCNN", 50, "d", 1, "FPN"): "MaskRCNN-ResNet50-vd-FPN",
    ("MaskRCNN", 101, "b", 1, "FPN"): "MaskRCNN-ResNet101-FPN",
    ("MaskRCNN", 101, "d", 1, "FPN"): "MaskRCNN-ResNet101-vd-FPN",
    ("MaskRCNN", 101, "d", 64, "FPN"): "MaskRCNN-ResNeXt101-vd-FPN",
    ("CascadeRCNN", 50, "b", 1, "FPN"): "Cascade-MaskRCNN-ResNet50-FPN",
    ("CascadeRCNN", 50, "d", 1, "FPN"): "Cascade-MaskRCNN-ResNet50-vd-SSLDv2-FPN",
    ("SOLOv2", 50, "b", 1, "FPN"): "SOLOv2",
}
"""By architecture, depth, variant, groups and neck."""


@dataclass(frozen=True)
class Network:
    model: str
    options: dict[str, Any] = field(default_factory=dict)
    """Of `build_model`, beyond the model's own."""


def find_network(config: Config) -> Network:
    """The model that a config describes. What it says as the network here has it is taken from `config`.

    Raises UserError if there is none like it.
    """
    architecture = config.take("architecture")
    if architecture not in COMPONENTS:
        known = ", ".join(COMPONENTS)
        raise UserError(f"{config.path}: architecture {architecture}: there is no such model here (known: {known})")
    parts = {name: config.take(f"{architecture}.{name}") for name in ("backbone", "neck")}
    for name, part in COMPONENTS[architecture].items():
        said = parts.get(name) or config.take(f"{architecture}.{name}", part)
        if said != part:
            raise UserError(f"{config.path}: {architecture}.{name}: {said}; there are only models with {part} here")
    if architecture in ("PPYOLOE", "DETR") and not (config.take("with_mask") or config.take("PPYOLOE.with_mask")):
        raise UserError(f"{config.path}: with_mask: a model without masks; only those that segment are here")
    config.take("PPYOLOE.with_mask")
    if architecture == "PPYOLOE":
        config.take("PPYOLOE.post_process")
        width, depth = float(config.take("width_mult", 1.0)), float(config.take("depth_mult", 1.0))
        _drop_fixed(config, "ppyoloe_seg")
        options = {} if (width, depth) == (0.5, 0.33) else {"width": width, "depth": depth}
        return Network("PP-YOLOE_seg-S", options)
    if architecture == "DETR":
        size = str(config.take("PPHGNetV2.arch", "L"))
        if size not in "SMLXH":
            raise UserError(f"{config.path}: PPHGNetV2.arch: {size}; Mask-RT-DETR is S, M, L, X or H")
        _drop_fixed(config, "mask_rtdetr", size)
        config.drop("ResNet.*")  # The base has one, which this backbone takes the place of.
        return Network(f"Mask-RT-DETR-{size}")
    model = _resnet_model(config, architecture, parts["neck"])
    own = {"MaskRCNN": ("rcnn",), "CascadeRCNN": ("rcnn", "cascade"), "SOLOv2": ("solov2",)}[architecture]
    _drop_fixed(config, *own, *(("c4",) if parts["neck"] is None else ()))
    return Network(model)


def _resnet_model(config: Config, architecture: str, neck: str | None) -> str:
    depth, variant = config.take("ResNet.depth", 50), config.take("ResNet.variant", "b")
    groups, width = config.take("ResNet.groups", 1), config.take("ResNet.base_width", 64)
    model = _RESNETS.get((architecture, depth, variant, groups, neck))
    if model is None or (groups > 1 and width != 4):
        kind = f"ResNet of depth {depth}, variant {variant}, {groups} groups, neck {neck}"
        like = ", ".join(name for (family, *_), name in _RESNETS.items() if family == architecture)
        raise UserError(f"{config.path}: {architecture} with {kind}: there is no such model here (there are: {like})")
    ssld = "ssld" in str(config.peek("pretrain_weights", "")).lower()
    return "MaskRCNN-ResNet50-vd-SSLDv2-FPN" if model == "MaskRCNN-ResNet50-vd-FPN" and ssld else model


def _drop_fixed(config: Config, *sections: str) -> None:
    """Take from `config` what it says as it is here; what differs gets a note and stays."""
    table = yaml.safe_load(Path(__file__).with_name("fixed.yaml").read_text(encoding="utf-8"))
    fixed: dict[str, Any] = {}
    for section in sections:
        fixed.update(_flat(table[section]))
    if config.peek("norm_type") in ("bn", "sync_bn"):
        config.take("norm_type")  # On several devices train.sync_bn decides.
    for key, value in fixed.items():
        if config.peek(key, value) == value:
            config.take(key)
        else:
            config.note(key, f"is {value} here")


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in tree.items():
        result.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return result
