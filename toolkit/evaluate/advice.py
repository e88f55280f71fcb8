"""What to do next, drawn from the figures of a report."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from toolkit.data.findings.table import Lang
from toolkit.evaluate.words import ADVICE

FEW = 20
"""Objects of a class below which its AP says little."""


def advise(figures: dict[str, Any]) -> list[dict[str, Any]]:
    """Pieces of advice, the weightiest first: `name` and `values`; see `told`."""
    return [{"name": name, "values": values} for name, values in _advice(figures)]


def told(advice: dict[str, Any], lang: Lang) -> str:
    return ADVICE[advice["name"]][lang].format(**advice["values"])


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
