"""The table of the sixteen models: published figures, family, weight addresses."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from toolkit.bundled import recipes_dir
from toolkit.errors import UserError

_OFFICIAL = "https://paddle-model-ecology.bj.bcebos.com/paddlex/official_pretrained_model/{}_pretrained.pdparams"


@dataclass(frozen=True, kw_only=True)
class ZooModel:
    """Published figures of one model, on COCO val2017 unless said otherwise."""

    name: str
    family: str
    mask_ap: float
    """Per cent."""
    size_mb: float
    gpu_ms: float | None
    """Tesla T4, FP32, one picture."""
    cpu_ms: float | None
    """Xeon 6271C, 8 threads, FP32, one picture."""
    backbone: str
    epochs: int
    url: str

    @property
    def recipe(self) -> Path:
        """Its recipe, which ships with the package."""
        return recipes_dir() / f"{self.name}.yaml"


def _model(
    name: str,
    family: str,
    mask_ap: float,
    size_mb: float,
    gpu_ms: float | None,
    cpu_ms: float | None,
    backbone: str,
    epochs: int,
    url: str | None = None,
) -> ZooModel:
    return ZooModel(
        name=name,
        family=family,
        mask_ap=mask_ap,
        size_mb=size_mb,
        gpu_ms=gpu_ms,
        cpu_ms=cpu_ms,
        backbone=backbone,
        epochs=epochs,
        url=url or _OFFICIAL.format(name),
    )


_CASCADE_SSLD = "Cascade-MaskRCNN-ResNet50-vd-SSLDv2-FPN"
_SSLD = "https://paddledet.bj.bcebos.com/models/mask_rcnn_r50_vd_fpn_ssld_2x_coco.pdparams"

# Sources: the model tables of PaddleX and PaddleDetection.
MODELS: dict[str, ZooModel] = {
    model.name: model
    for model in (
        _model("Mask-RT-DETR-S", "mask_rtdetr", 41.0, 51.8, 120.86, None, "PP-HGNetV2 S", 72),
        _model("Mask-RT-DETR-M", "mask_rtdetr", 42.7, 66.6, 87.08, None, "PP-HGNetV2 M", 72),
        _model("Mask-RT-DETR-L", "mask_rtdetr", 45.7, 113.6, 113.20, 1179.56, "PP-HGNetV2 L", 72),
        _model("Mask-RT-DETR-X", "mask_rtdetr", 47.5, 237.5, 141.43, 1379.14, "PP-HGNetV2 X", 72),
        _model("Mask-RT-DETR-H", "mask_rtdetr", 50.6, 449.9, 180.83, 1711.24, "PP-HGNetV2 H", 72),
        _model("MaskRCNN-ResNet50", "mask_rcnn", 32.8, 127.8, 181.60, None, "ResNet-50 C4", 12),
        _model("MaskRCNN-ResNet50-FPN", "mask_rcnn", 35.6, 157.5, 112.79, None, "ResNet-50", 12),
        _model("MaskRCNN-ResNet50-vd-FPN", "mask_rcnn", 36.4, 157.5, 112.88, None, "ResNet-50-vd", 12),
        _model("MaskRCNN-ResNet50-vd-SSLDv2-FPN", "mask_rcnn", 38.2, 157.2, None, None, "ResNet-50-vd", 24, _SSLD),
        _model("MaskRCNN-ResNet101-FPN", "mask_rcnn", 36.6, 225.4, 138.84, None, "ResNet-101", 12),
        _model("MaskRCNN-ResNet101-vd-FPN", "mask_rcnn", 38.1, 225.1, 141.73, None, "ResNet-101-vd", 12),
        _model("MaskRCNN-ResNeXt101-vd-FPN", "mask_rcnn", 39.5, 370.0, 220.83, None, "ResNeXt-101-vd 64x4d", 24),
        _model("Cascade-MaskRCNN-ResNet50-FPN", "cascade_mask_rcnn", 36.3, 254.8, 136.79, None, "ResNet-50", 12),
        _model(
            "Cascade-MaskRCNN-ResNet50-vd-SSLDv2-FPN",
            "cascade_mask_rcnn",
            39.1,
            254.7,
            137.40,
            None,
            "ResNet-50-vd",
            12,
        ),
        _model("PP-YOLOE_seg-S", "ppyoloe_seg", 32.5, 31.5, 243.41, 2507.70, "CSPResNet S", 80),
        _model("SOLOv2", "solov2", 35.5, 179.1, 131.99, None, "ResNet-50", 12),
    )
}


def find_model(name: str) -> ZooModel:
    """The row of a model. Raises UserError for a name that is not in the table, with the closest that is."""
    if name in MODELS:
        return MODELS[name]
    by_lower = {known.lower(): known for known in MODELS}
    asked = name.lower()
    close = [k for k in by_lower if asked in k] or difflib.get_close_matches(asked, by_lower, n=1, cutoff=0.4)
    hint = f"did you mean {by_lower[close[0]]}?" if close else "`seg-tune models` lists them"
    raise UserError(f"model {name}: unknown; {hint}")
