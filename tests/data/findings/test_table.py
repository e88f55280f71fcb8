from __future__ import annotations

import re
from pathlib import Path
from string import Formatter

import pytest

from toolkit.data.findings.table import CODES, GROUPS, SEVERITIES

PAGE = Path(__file__).parents[3] / "docs" / "validate.md"


@pytest.mark.parametrize("name", CODES)
def test_a_code_says_the_same_in_both_languages(name: str) -> None:
    code = CODES[name]
    assert code.severity in SEVERITIES
    assert code.group in GROUPS
    fields = [{field for _, field, _, _ in Formatter().parse(code.text[lang]) if field} for lang in ("en", "zh")]
    # What a reader of the file says itself is English; the Chinese text says it in its own words.
    assert fields[0] - {"error", "what", "how"} == fields[1] - {"error", "what_zh", "how_zh"}
    assert re.search(r"[\u4e00-\u9fff]", code.text["zh"] + code.advice["zh"])
    assert re.search(r"[\u4e00-\u9fff]", code.advice["zh"])
    assert code.text["en"].isascii()
    assert "{" not in code.advice["en"] + code.advice["zh"]


def test_the_docs_list_all_codes() -> None:
    listed = re.findall(r"^\| `([a-z0-9-]+)` \| (\w+) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert dict(listed) == {code.name: code.severity for code in CODES.values()}
    assert len(listed) == len(CODES)
