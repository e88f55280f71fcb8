"""What to do next, drawn from the figures of a report."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from toolkit.data.findings.table import Lang

FEW = 20
"""Objects of a class below which its AP says little."""

TEXTS: dict[str, dict[Lang, str]] = {
    "few_pictures": {
        "en": "The mask AP is known to no more than {low:.1f} to {high:.1f}: evaluate on more than {pictures} pictures "
        "before small differences are trusted.",
        "zh": "掩码 AP 的 95% 区间为 {low:.1f} 至 {high:.1f}：请用多于 {pictures} 张图片评估，再比较细小差异。",
    },
    "nothing_found": {
        "en": "Nothing right was found: check that the classes are those of the training, train longer, or look at the "
        "pictures below.",
        "zh": "没有找到任何正确的目标：请检查类别是否与训练一致、延长训练，或查看下方图片。",
    },
    "localisation": {
        "en": "Inexact masks cost the most ({lost:.1f} points of AP50, {count} detections). In {share:.0%} of them the "
        "box is right and the mask is not: a larger input (data.input_size) or cleaner outlines in the annotations help.",
        "zh": "掩码不准代价最大（AP50 损失 {lost:.1f} 点，{count} 个检测）。其中 {share:.0%} 框正确而掩码不准："
        "可增大输入（data.input_size）或改进标注轮廓。",
    },
    "class": {
        "en": "Confused classes cost the most ({lost:.1f} points of AP50), {truth} taken for {found} above all "
        "({count} times): check their annotations against each other and add examples of both.",
        "zh": "类别混淆代价最大（AP50 损失 {lost:.1f} 点），其中 {truth} 被当作 {found} 最多（{count} 次）："
        "请核对两类标注，并补充样本。",
    },
    "duplicate": {
        "en": "Objects found twice cost the most ({lost:.1f} points of AP50, {count} detections): a stricter suppression "
        "of overlapping detections, or longer training of a DETR model, helps.",
        "zh": "重复检测代价最大（AP50 损失 {lost:.1f} 点，{count} 个检测）：可加强重叠抑制；DETR 类模型可延长训练。",
    },
    "background": {
        "en": "Finding what is not there costs the most ({lost:.1f} points of AP50, {count} detections): add pictures "
        "without objects, and look whether these are objects that nobody annotated.",
        "zh": "背景误检代价最大（AP50 损失 {lost:.1f} 点，{count} 个检测）：请加入无目标图片，并检查是否漏标。",
    },
    "both": {
        "en": "Detections wrong in class and place cost the most ({lost:.1f} points of AP50, {count} of them): the model "
        "has learnt too little yet; train longer or on more data.",
        "zh": "类别与位置都错的检测代价最大（AP50 损失 {lost:.1f} 点，{count} 个）：模型学得不够，请延长训练或增加数据。",
    },
    "missed": {
        "en": "Missed objects cost the most ({lost:.1f} points of AP50, {count} objects), most of them of the class "
        "{name} ({most}): add examples of it, or a larger input if they are small.",
        "zh": "漏检代价最大（AP50 损失 {lost:.1f} 点，{count} 个目标），{name} 类最多（{most} 个）："
        "请补充该类样本；若目标较小，可增大输入。",
    },
    "small": {
        "en": "Small objects are found far worse (AP {small:.1f}) than large ones ({large:.1f}): a larger input "
        "(data.input_size), or tiles where pictures are large (--tiling), helps.",
        "zh": "小目标（AP {small:.1f}）远差于大目标（{large:.1f}）：可增大输入（data.input_size），大图可切块（--tiling）。",
    },
    "outlines": {
        "en": "Masks are found but their edges are coarse: boundary AP {boundary:.1f}, mask AP {mask:.1f}. Finer outlines "
        "in the annotations, or a model with larger masks, help.",
        "zh": "掩码找到了但边缘粗糙：边界 AP {boundary:.1f}，掩码 AP {mask:.1f}。可改进标注轮廓，或使用掩码更大的模型。",
    },
    "too_sure": {
        "en": "Scores are higher than what is right of them, by {surplus:.0%} on average: do not read them as "
        "probabilities; thresholds by class (--set-thresholds) set it right for use.",
        "zh": "分数平均高于实际正确率 {surplus:.0%}：不要当作概率；可按类设置阈值（--set-thresholds）。",
    },
    "too_unsure": {
        "en": "Scores are lower than what is right of them, by {surplus:.0%} on average: a threshold of 0.5 hides good "
        "detections; thresholds by class (--set-thresholds) show them.",
        "zh": "分数平均低于实际正确率 {surplus:.0%}：0.5 的阈值会隐藏好的检测；可按类设置阈值（--set-thresholds）。",
    },
    "dark": {
        "en": "Dark pictures go worse (AP {low:.1f}) than bright ones ({high:.1f}): add dark ones to the training data.",
        "zh": "暗图（AP {low:.1f}）差于亮图（{high:.1f}）：请在训练数据中加入暗图。",
    },
    "bright": {
        "en": "Bright pictures go worse (AP {high:.1f}) than dark ones ({low:.1f}): add bright ones to the training data.",
        "zh": "亮图（AP {high:.1f}）差于暗图（{low:.1f}）：请在训练数据中加入亮图。",
    },
    "crowded": {
        "en": "Pictures with many objects go worse (AP {high:.1f}) than those with few ({low:.1f}): add crowded ones.",
        "zh": "目标多的图片（AP {high:.1f}）差于目标少的（{low:.1f}）：请补充密集图片。",
    },
    "rare": {
        "en": "{count} classes have fewer than {few} objects here ({names}): their AP is left to chance.",
        "zh": "{count} 个类别的目标少于 {few} 个（{names}）：其 AP 偶然性大。",
    },
}


def advise(figures: dict[str, Any]) -> list[dict[str, Any]]:
    """Pieces of advice, the weightiest first: `name` and `values`; see `told`."""
    return [{"name": name, "values": values} for name, values in _advice(figures)]


def told(advice: dict[str, Any], lang: Lang) -> str:
    return TEXTS[advice["name"]][lang].format(**advice["values"])


def _advice(figures: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    headline, errors = figures["headline"], figures["errors"]
    mask, by_class = headline["mask"], figures["by_class"]
    if not errors["AP50"]:
        yield "nothing_found", {}
    elif (lost := errors["lost"]) and (most := max(lost, key=lost.__getitem__)) and lost[most] > 0.01:
        values = {"lost": 100 * lost[most], "count": errors["counts"][most]}
        if most == "localisation":
            values["share"] = errors["box_right"] / max(values["count"], 1)
        elif most == "missed":
            worst = max(by_class, key=lambda row: row["errors"]["missed"])
            values |= {"name": worst["name"], "most": worst["errors"]["missed"]}
        pair = _most_confused(figures["confusion"])
        if most != "class":
            yield most, values
        elif pair:
            yield most, values | pair
    if mask["APs"] is not None and mask["APl"] and mask["APs"] < 0.5 * mask["APl"]:
        yield "small", {"small": 100 * mask["APs"], "large": 100 * mask["APl"]}
    if mask["AP"] and (edge := headline["boundary"]["AP"]) is not None and edge < 0.6 * mask["AP"]:
        yield "outlines", {"boundary": 100 * edge, "mask": 100 * mask["AP"]}
    if (surplus := figures["reliability"]["surplus"]) is not None and abs(surplus) > 0.1:
        yield ("too_sure" if surplus > 0 else "too_unsure"), {"surplus": abs(surplus)}
    yield from _uneven(figures["slices"])
    interval = figures["intervals"]["mask"]["AP"]
    if interval["low"] is not None and interval["high"] - interval["low"] > 0.05:
        values = {"low": 100 * interval["low"], "high": 100 * interval["high"], "pictures": figures["pictures"]}
        yield "few_pictures", values
    rare = [row["name"] for row in by_class if 0 < row["objects"] < FEW]
    if rare:
        names = ", ".join(rare[:5]) + (", …" if rare[5:] else "")
        yield "rare", {"count": len(rare), "few": FEW, "names": names}


def _uneven(slices: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where the first and the last third differ by more than their intervals."""
    for kind, names in (("brightness", ("dark", "bright")), ("crowding", (None, "crowded"))):
        if len(slices[kind]) < 2:
            continue
        low, high = slices[kind][0]["ap"], slices[kind][-1]["ap"]
        if None in (low["low"], high["low"]):
            continue
        values = {"low": 100 * low["value"], "high": 100 * high["value"]}
        for name, worse, better in zip(names, (low, high), (high, low), strict=True):
            if name and worse["high"] < better["low"]:
                yield name, values


def _most_confused(confusion: dict[str, Any]) -> dict[str, Any] | None:
    names, matrix = confusion["classes"], confusion["matrix"]
    pairs = [(count, i, j) for i, row in enumerate(matrix[:-1]) for j, count in enumerate(row[:-1]) if i != j and count]
    if not pairs:
        return None
    count, i, j = max(pairs)
    return {"truth": names[i], "found": names[j], "count": count}
