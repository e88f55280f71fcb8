"""What report and comparison say, as `words.yaml` has it."""

from __future__ import annotations

from pathlib import Path

import yaml

from toolkit.data.findings.table import Lang

_TREE: dict[str, dict[str, dict[Lang, str]]] = yaml.safe_load(
    Path(__file__).with_name("words.yaml").read_text(encoding="utf-8")
)
ADVICE = _TREE["advice"]
"""By name and language."""
WORDS: dict[Lang, dict[str, str]] = {
    lang: {name: texts[lang] for name, texts in _TREE["page"].items()} for lang in ("en", "zh")
}
