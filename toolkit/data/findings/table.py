"""The kinds of finding; `codes.yaml` beside this file lists them all."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

Severity = Literal["error", "warning", "note"]
Lang = Literal["en", "zh"]

SEVERITIES: dict[Severity, dict[Lang, str]] = {
    "error": {"en": "errors: training refuses these", "zh": "错误：训练会拒绝"},
    "warning": {"en": "warnings: training may learn or measure the wrong thing", "zh": "警告：可能学错或评估不准"},
    "note": {"en": "notes: harmless, good to know", "zh": "提示：无害，供参考"},
}
GROUPS: dict[str, dict[Lang, str]] = {
    "file": {"en": "Annotation files", "zh": "标注文件"},
    "ids": {"en": "Ids and references", "zh": "ID 与引用"},
    "categories": {"en": "Categories", "zh": "类别"},
    "images": {"en": "Pictures", "zh": "图片"},
    "paths": {"en": "Paths", "zh": "路径"},
    "geometry": {"en": "Geometry", "zh": "几何"},
    "duplicates": {"en": "Duplicates", "zh": "重复"},
    "statistics": {"en": "Statistics", "zh": "统计"},
    "model": {"en": "The model's view", "zh": "模型视角"},
}


@dataclass(frozen=True)
class Code:
    """One kind of finding."""

    name: str
    severity: Severity
    group: str
    text: dict[Lang, str]
    """What was found; `{...}` is filled with the values of the finding."""
    advice: dict[Lang, str]
    """What to do about it."""


def _read() -> dict[str, Code]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    tree = yaml.load((Path(__file__).parent / "codes.yaml").read_text(encoding="utf-8"), loader)
    return {
        name: Code(name, severity, group, {"en": row["en"], "zh": row["zh"]}, {"en": row["do"], "zh": row["do_zh"]})
        for severity, groups in tree.items()
        for group, rows in groups.items()
        for name, row in rows.items()
    }


CODES = _read()
