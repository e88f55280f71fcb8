"""Rules on what train and val have in common."""

from __future__ import annotations

from toolkit.data.findings.file import File
from toolkit.data.findings.record import Findings


def check_classes(train: File, val: File, findings: Findings) -> None:
    """Rules on the classes of both files."""
    names, others = list(train.classes.values()), list(val.classes.values())
    rows = {
        entry.get("id"): row for row, entry in enumerate(val.sections["categories"]) if type(entry.get("id")) is int
    }
    unknown = [number for number, name in val.classes.items() if name not in names]
    findings.add(
        *("category-only-in-val", val, "categories", [rows[number] for number in unknown]),
        key="name",
        name=[val.classes[number] for number in unknown],
        train=f"{train.path} ({', '.join(names)})",
    )
    missing = [name for name in names if name not in others]
    if missing:
        findings.add("categories-differ", val, how=f"lack {', '.join(missing)}", how_zh=f"缺少 {', '.join(missing)}")
    elif names != others and not unknown:
        findings.add("categories-differ", val, how="have another order", how_zh="顺序不同")
