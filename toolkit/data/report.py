"""What was found in a dataset as one page without external resources, and as PaddleX's `check_dataset_result.json`."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import orjson
from markupsafe import Markup
from numpy.typing import NDArray

from toolkit.data import plots
from toolkit.data.draw import draw_instances
from toolkit.data.findings.ceiling import Ceiling, mask_of
from toolkit.data.findings.check import Checked, Stage, quietly
from toolkit.data.findings.file import File
from toolkit.data.findings.looks import spread
from toolkit.data.findings.record import Finding
from toolkit.data.findings.statistics import objects_by_class
from toolkit.data.findings.table import GROUPS, SEVERITIES, Lang
from toolkit.data.images import read_rgb, upright
from toolkit.data.layouts import Source
from toolkit.data.page import render
from toolkit.errors import UserError

SAMPLES = 10
"""Pictures of each split."""
PLACES = 50
"""Findings of each code that are listed."""
PICTURES = 3
"""Pictures of each code that are shown."""
SIDE = 560
"""Longer side of the pictures, pixels."""

WORDS: dict[Lang, dict[str, str]] = {
    "en": {
        "title": "Dataset check",
        "passed": "✓ Check passed: training takes this data",
        "failed": "✗ Check failed: training refuses this data",
        "findings": "Findings",
        "nothing": "Nothing was found.",
        "statistics": "Statistics",
        "pictures": "Pictures",
        "see": "see picture",
        "error": "error",
        "warning": "warning",
        "note": "note",
        "more": "and {count} more; `seg-tune validate --json` lists all",
        "images": "{split} pictures",
        "objects": "{split} objects",
        "classes": "classes",
        "errors": "errors",
        "warnings": "warnings",
        "plot_classes": "Objects by class",
        "plot_areas": "Size of objects",
        "axis_areas": "square root of the area, pixels",
        "plot_aspects": "Shape of objects",
        "axis_aspects": "width / height",
        "plot_positions": "Where objects lie",
        "plot_counts": "Objects a picture",
        "axis_counts": "objects",
        "plot_sizes": "Size of pictures",
        "axis_sizes": "width and height, pixels",
        "caption": "{width} × {height}, {count} objects",
        "ceiling": "{model} can reach a mask AP of {ap:.1f} at best on {split}: every object found, every cell of its "
        "mask grid right (mean IoU {iou:.3f}; measured on {measured} of {instances} objects).",
        "partly": "Only {count} of {all} pictures were opened.",
    },
    "zh": {
        "title": "数据集检查",
        "passed": "✓ 检查通过：可以训练",
        "failed": "✗ 检查未通过：训练会拒绝该数据",
        "findings": "发现的问题",
        "nothing": "没有发现问题。",
        "statistics": "统计",
        "pictures": "图片",
        "see": "查看图片",
        "error": "错误",
        "warning": "警告",
        "note": "提示",
        "more": "另有 {count} 处；`seg-tune validate --json` 列出全部",
        "images": "{split} 图片",
        "objects": "{split} 目标",
        "classes": "类别",
        "errors": "错误",
        "warnings": "警告",
        "plot_classes": "各类别目标数",
        "plot_areas": "目标大小",
        "axis_areas": "面积的平方根，像素",
        "plot_aspects": "目标形状",
        "axis_aspects": "宽 / 高",
        "plot_positions": "目标位置",
        "plot_counts": "每张图片的目标数",
        "axis_counts": "目标数",
        "plot_sizes": "图片尺寸",
        "axis_sizes": "宽与高，像素",
        "caption": "{width} × {height}，{count} 个目标",
        "ceiling": "{model} 在 {split} 上的掩码 AP 上限为 {ap:.1f}：假设找到全部目标，且掩码网格的每一格都正确"
        "（平均 IoU {iou:.3f}；测量了 {instances} 个目标中的 {measured} 个）。",
        "partly": "共 {all} 张图片，只打开了 {count} 张。",
    },
}


@dataclass(frozen=True)
class Shown:
    """A picture on the page."""

    anchor: str
    split: str
    name: str
    caption: str
    jpeg: bytes
    width: int
    height: int

    @property
    def data(self) -> str:
        return base64.b64encode(self.jpeg).decode()


def write_report(
    checked: Checked,
    sources: Sequence[Source],
    folder: Path,
    *,
    lang: Lang = "en",
    ceiling: Ceiling | None = None,
    partial: bool = False,
    stage: Stage = quietly,
) -> Path:
    """Write `report.html`, `check_dataset_result.json` and what the latter names into `folder`; return the page.

    Args:
        partial: not all pictures were to be opened, which the page then says.

    Raises UserError if the folder cannot be written to.
    """
    samples = {split: spread(_whole_pictures(file), SAMPLES) for split, file in checked.files.items()}
    wanted: dict[tuple[str, int], list[Finding]] = {(split, row): [] for split, rows in samples.items() for row in rows}
    for finding in _to_show(checked):
        wanted.setdefault((finding.split, int(finding.picture or 0)), []).append(finding)
    with stage("report") as advance:
        shown = {}
        for done, ((split, row), findings) in enumerate(wanted.items(), 1):
            picture = _picture(checked.files[split], row, findings, lang)
            if picture:
                shown[split, row] = picture
            advance(done, len(wanted))
    page = _page(checked, sources, list(shown.values()), lang, ceiling, partial)
    try:
        pictures = folder / "check_dataset" / "demo_img"
        pictures.mkdir(parents=True, exist_ok=True)
        paths: dict[str, list[str]] = {split: [] for split in ("train", "val")}
        for split, rows in samples.items():
            for picture in (shown[split, row] for row in rows if (split, row) in shown):
                (pictures / f"{picture.anchor}.jpg").write_bytes(picture.jpeg)
                paths[split].append(f"check_dataset/demo_img/{picture.anchor}.jpg")
        bars = plots.standing_alone(_class_bars(checked))
        (folder / "check_dataset" / "histogram.svg").write_text(bars, encoding="utf-8")
        tree = paddlex_result(checked, str(sources[0].root), paths)
        (folder / "check_dataset_result.json").write_bytes(orjson.dumps(tree, option=orjson.OPT_INDENT_2))
        file = folder / "report.html"
        file.write_text(page, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{folder}: cannot be written to: {error.strerror or error}") from None
    return file


def paddlex_result(checked: Checked, dataset: str, paths: dict[str, list[str]]) -> dict[str, Any]:
    """`check_dataset_result.json` with the keys of PaddleX 3; its samples are pictures."""
    train = checked.files.get("train")
    attributes: dict[str, Any] = {"num_classes": len(train.classes) if train else 0}
    for split in ("train", "val"):
        file = checked.files.get(split)
        attributes[f"{split}_samples"] = len(file.files) if file else 0
        attributes[f"{split}_sample_paths"] = paths[split]
    error = next((f for f in checked.findings if f.code.severity == "error"), None)
    failure = {"err_type": error.code.name, "err_msg": error.line()} if error else {}
    return {
        "done_flag": True,
        "check_pass": error is None,
        **failure,
        "attributes": attributes,
        "analysis": {"histogram": "check_dataset/histogram.svg"},
        "dataset_path": dataset,
        "show_type": "image",
        "dataset_type": "COCOInstSegDataset",
    }


def _page(
    checked: Checked, sources: Sequence[Source], shown: list[Shown], lang: Lang, ceiling: Ceiling | None, partial: bool
) -> str:
    words, findings, files = WORDS[lang], checked.findings, checked.files
    anchors = {picture.anchor for picture in shown}
    tiles = []
    for split, file in files.items():
        tiles.append((f"{len(file.files):,}", words["images"].format(split=split)))
        tiles.append((f"{int(objects_by_class(file).sum()):,}", words["objects"].format(split=split)))
    tiles.append((str(max((len(file.classes) for file in files.values()), default=0)), words["classes"]))
    tiles += [(str(findings.count(severity)), words[f"{severity}s"]) for severity in ("error", "warning")]
    groups: dict[str, list[dict[str, Any]]] = {}
    for founds in findings.by_code().values():
        code, count = founds[0].code, sum(map(len, founds))
        places = [finding for found in founds for finding in _first(found, PLACES)][:PLACES]
        groups.setdefault(code.group, []).append(
            {
                "name": code.name,
                "severity": code.severity,
                "advice": code.advice[lang],
                "count": count,
                "places": [_place(finding, anchors, lang) for finding in places],
                "more": words["more"].format(count=count - len(places)) if count > len(places) else "",
            }
        )
    order = list(SEVERITIES)
    for codes in groups.values():
        codes.sort(key=lambda code: order.index(code["severity"]))
    opened, there = sum(len(look.digests) for look in checked.looks.values()), sum(len(f.files) for f in files.values())
    return render(
        Path(__file__).parent / "report.html.j2",
        lang=lang,
        words=words,
        dataset=str(sources[0].root),
        passed=not findings.count("error"),
        partly=words["partly"].format(count=opened, all=there) if partial else "",
        tiles=tiles,
        ceiling=words["ceiling"].format(**{**vars(ceiling), "ap": 100 * ceiling.ap}) if ceiling else "",
        groups=[{"title": GROUPS[name][lang], "codes": groups[name]} for name in GROUPS if name in groups],
        plots=list(_plots(checked, words)) if files else [],
        pictures=shown,
    )


def _first(found: Any, most: int) -> Iterator[Finding]:
    return (found[i] for i in range(min(len(found), most)))


def _place(finding: Finding, anchors: set[str], lang: Lang) -> dict[str, Any]:
    anchor = f"{finding.split}-{finding.picture}"
    link = anchor if finding.picture is not None and anchor in anchors else None
    return {"split": finding.split, "path": finding.path, "id": finding.id, "text": finding.text(lang), "link": link}


# Pictures


def _whole_pictures(file: File) -> list[int]:
    """Rows of images that can be shown, those with objects if there are any."""
    known = (file.size > 0).all(1) & np.array([path is not None for path in file.files], np.bool_)
    objects = np.bincount(file.image[~file.empty & (file.image >= 0)], minlength=len(known)) > 0
    return np.flatnonzero(known & objects if (known & objects).any() else known).tolist()


def _to_show(checked: Checked) -> Iterator[Finding]:
    """Findings whose picture goes onto the page."""
    for founds in checked.findings.by_code().values():
        seen: set[tuple[str, int]] = set()
        for found in founds:
            for finding in _first(found, PLACES):
                if finding.picture is None or len(seen | {(finding.split, finding.picture)}) > PICTURES:
                    continue
                seen.add((finding.split, finding.picture))
                yield finding


def _picture(file: File, row: int, findings: list[Finding], lang: Lang) -> Shown | None:
    """An image with its objects, those with findings framed in red; None where it cannot be read."""
    path = file.files[row]
    try:
        rgb = read_rgb(path) if path else None
    except UserError:
        return None
    if rgb is None:
        return None
    objects = np.flatnonzero((file.image == row) & ~file.empty & (file.category >= 0)).tolist()
    height, width = rgb.shape[:2]
    scale = min(1.0, SIDE / max(height, width))
    size = max(1, round(height * scale)), max(1, round(width * scale))
    canvas = cv2.resize(rgb, size[::-1], interpolation=cv2.INTER_AREA)
    boxes, masks = [], []
    for annotation in objects:
        mask = upright(mask_of(file, annotation), int(file.orientation[row]))
        box, cut = _small(mask, size)
        boxes.append(box)
        masks.append(cut)
    names = list(file.classes.values())
    kinds = [int(file.category[annotation]) for annotation in objects]
    drawn = draw_instances(
        canvas.astype(np.uint8), boxes=boxes, masks=masks, labels=[names[kind] for kind in kinds], classes=kinds
    )
    drawn = drawn.copy()
    marked = {finding.row for finding in findings if finding.section == "annotations"}
    for annotation, (x1, y1, x2, y2) in zip(objects, boxes, strict=True):
        if annotation in marked:
            cv2.rectangle(drawn, (x1 - 2, y1 - 2), (x2 + 1, y2 + 1), (230, 30, 30), 2)
    jpeg = cv2.imencode(".jpg", cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 82])[1].tobytes()
    caption = WORDS[lang]["caption"].format(width=width, height=height, count=len(objects))
    codes = dict.fromkeys(finding.code.name for finding in findings)
    name = str(file.sections["images"][row].get("file_name"))
    more = " · ".join([caption, *codes])
    return Shown(f"{file.split}-{row}", file.split, name, more, jpeg, size[1], size[0])


def _small(mask: NDArray[np.uint8], size: tuple[int, int]) -> tuple[tuple[int, int, int, int], NDArray[np.uint8]]:
    """Box and part inside it of a mask at another size."""
    mask = cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT).astype(np.uint8)
    x, y, w, h = cv2.boundingRect(mask)
    return (x, y, x + w, y + h), mask[y : y + h, x : x + w]


# Plots


def _class_bars(checked: Checked) -> Markup:
    counts = {
        split: dict(zip(file.classes.values(), objects_by_class(file).tolist(), strict=True))
        for split, file in checked.files.items()
    }
    names = list(dict.fromkeys(name for split in counts.values() for name in split))
    train, val = (([counts.get(split, {}).get(name, 0) for name in names]) for split in ("train", "val"))
    return plots.bars(names, train, val)


def _plots(checked: Checked, words: dict[str, str]) -> Iterator[tuple[str, Markup]]:
    columns = {split: _columns(checked.files.get(split)) for split in ("train", "val")}

    def both(key: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return columns["train"][key], columns["val"][key]

    edges = np.array([0, 8, 16, 32, 64, 96, 128, 192, 256, 512, 1e9])
    labels = ["<8", "16", "32", "64", "96", "128", "192", "256", "512", ">"]
    yield words["plot_areas"], plots.histogram(*both("sides"), edges, labels, words["axis_areas"])
    edges = np.array([0, 1 / 8, 1 / 4, 1 / 2, 2 / 3, 0.9, 1.1, 1.5, 2, 4, 8, 1e9])
    labels = ["", "1:8", "1:4", "1:2", "", "1:1", "", "2:1", "4:1", "8:1", ""]
    yield words["plot_aspects"], plots.histogram(*both("aspects"), edges, labels, words["axis_aspects"])
    yield words["plot_positions"], plots.heat(np.concatenate(both("x")), np.concatenate(both("y")))
    edges = np.array([0, 1, 2, 3, 5, 9, 17, 33, 65, 1e9])
    labels = ["0", "1", "2", "–4", "–8", "–16", "–32", "–64", ">"]
    yield words["plot_counts"], plots.histogram(*both("counts"), edges, labels, words["axis_counts"])
    yield words["plot_sizes"], plots.scatter(*both("pictures"), words["axis_sizes"])
    yield words["plot_classes"], _class_bars(checked)


def _columns(file: File | None) -> dict[str, NDArray[np.float64]]:
    if file is None:
        return {key: np.zeros(0) for key in ("sides", "aspects", "x", "y", "counts")} | {"pictures": np.zeros((0, 2))}
    objects = np.flatnonzero(~file.empty & ~file.crowd)
    box = file.box[objects]
    sides = np.maximum(box[:, 2:] - box[:, :2], 1e-3)
    frame = np.maximum(file.frame[file.image[objects]][:, ::-1], 1)
    centre = (box[:, :2] + box[:, 2:]) / 2 / frame
    return {
        "sides": np.sqrt(file.area[objects]),
        "aspects": sides[:, 0] / sides[:, 1],
        "x": centre[:, 0],
        "y": centre[:, 1],
        "counts": np.bincount(file.image[objects], minlength=len(file.files)).astype(np.float64),
        "pictures": file.size[(file.size > 0).all(1)][:, ::-1].astype(np.float64),
    }
