from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from tests.data.test_report import Page
from tests.evaluate import planted
from tests.evaluate.planted import CLASSES, Row, make_split, spoiled
from toolkit.errors import UserError
from toolkit.evaluate.compare import compare
from toolkit.evaluate.compare_report import compare_evaluated
from toolkit.evaluate.tables import FILE, Stored, Tables, load_tables, save_tables

SPLIT = make_split(pictures=24)


def write(folder: Path, tables: Tables, *, classes: tuple[str, ...] = CLASSES) -> Path:
    folder.mkdir()
    save_tables(Stored(tables, list(classes), 100), folder / FILE)
    return folder


def losing(share: float, *, label: int | None = None, seed: int = 0) -> Callable[..., list[Row]]:
    rng = np.random.default_rng(seed)

    def spoil(row: Row, _: np.random.Generator) -> list[Row]:
        return [] if rng.random() < share and label in (None, row.label) else [row]

    return spoil


@cache
def tables_of_runs() -> dict[str, Tables]:
    """One to be held against, one that finds more, one that finds less of a class, one that only found other things."""
    spoils = {
        "first": losing(0.3),
        "better": losing(0.1, seed=1),
        "worse": losing(0.8, label=1, seed=2),
        "alike": losing(0.3, seed=3),
    }
    return {name: spoiled(SPLIT, spoil, part=1) for name, spoil in spoils.items()}


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    return [write(tmp_path / name, tables) for name, tables in tables_of_runs().items()]


def test_better_worse_and_not_distinguishable(runs: list[Path]) -> None:
    comparison = compare(runs)
    first, better, worse, alike = comparison.runs
    assert first.against is None
    assert [run.against.verdict for run in (better, alike) if run.against] == ["better", "open"]
    assert better.against is not None
    assert better.against.ap.value == pytest.approx((better.mask.value or 0) - (first.mask.value or 0))
    verdicts = {name: difference.verdict for name, difference in worse.against_by_class.items()}
    assert verdicts == {CLASSES[0]: "better", CLASSES[1]: "worse", CLASSES[2]: "better"}
    assert comparison.pictures == 24
    assert first.latency is first.megabytes is None


def test_a_run_is_not_distinguishable_from_itself(runs: list[Path], tmp_path: Path) -> None:
    same = write(tmp_path / "same", load_tables(runs[0] / FILE).tables)
    [_, other] = compare([runs[0], same]).runs
    assert other.against is not None
    assert other.against.ap.low == other.against.ap.high == 0
    assert other.against.verdict == "open"


def test_of_few_pictures_nothing_is_said(tmp_path: Path) -> None:
    few = make_split(pictures=9)
    spoils = losing(0.1), losing(0.7)
    folders = [write(tmp_path / f"{i}", spoiled(few, spoil, part=1)) for i, spoil in enumerate(spoils)]
    [_, other] = compare(folders).runs
    assert other.against is not None
    assert (other.against.ap.high or 0) < -0.3
    assert other.against.verdict == "open"


def test_pairs_tell_more_than_intervals_apart(runs: list[Path], tmp_path: Path) -> None:
    """A little better on every picture is better, though the intervals of both overlap."""
    tables = load_tables(runs[0] / FILE).tables
    drop = np.zeros(len(tables.label), np.bool_)
    # The last detection of each picture.
    drop[np.flatnonzero(np.diff(tables.picture, append=-1))] = True
    pairs = tables.mask.where(~drop[tables.mask.found])
    fewer = write(tmp_path / "fewer", Tables(**{**vars(tables), "mask": pairs}))
    one, other = compare([runs[0], fewer]).runs
    assert other.against is not None
    assert other.against.verdict == "worse"
    assert one.mask.low is not None
    assert other.mask.high is not None
    assert other.mask.high > one.mask.low


def test_page_json_and_screen(runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exported = runs[1] / "inference"
    exported.mkdir()
    rows = {"onnxruntime": {"ms_per_picture": 40.0, "holds": True}, "bf16": {"ms_per_picture": 9.0, "holds": False}}
    (exported / "certificate.json").write_text(json.dumps({"backends": rows}))
    (exported / "inference.pdiparams").write_bytes(bytes(2_500_000))
    for lang in ("en", "zh"):
        compare_evaluated([str(run) for run in runs[:2]], report=tmp_path / lang, lang=lang)  # type: ignore[arg-type]
        text = (tmp_path / lang / "compare.html").read_text(encoding="utf-8")
        page = Page(text)
        assert not page.sources
        assert "script" not in page.tags
        assert not re.search(r"https?://|url\(|@import", text)
        assert text.count("<circle") == 1
        assert not re.search(r"\bNone\b|\bnan\b", text)
    tree = json.loads((tmp_path / "en" / "compare.json").read_text(encoding="utf-8"))
    assert tree["runs"][1]["latency"] == 40
    assert tree["runs"][1]["engine"] == "onnxruntime"
    assert tree["runs"][1]["megabytes"] == 2.5
    assert tree["runs"][1]["against"]["verdict"] == "better"
    assert tree["runs"][0]["latency"] is None
    assert "better" in capsys.readouterr().out


def test_what_cannot_be_compared_is_refused(runs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="two runs"):
        compare_evaluated([str(runs[0])])
    with pytest.raises(UserError, match="twice"):
        compare_evaluated([str(runs[0]), str(runs[0])])
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match="seg-tune eval"):
        compare([runs[0], empty])
    (empty / FILE).write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(UserError, match="not readable"):
        compare([runs[0], empty])
    other = write(tmp_path / "other", spoiled(make_split(pictures=5), planted.dropped))
    with pytest.raises(UserError, match="other pictures"):
        compare([runs[0], other])
    named = write(tmp_path / "named", load_tables(runs[0] / FILE).tables, classes=("a", "b", "c"))
    with pytest.raises(UserError, match="classes"):
        compare([runs[0], named])


def test_tables_are_read_as_they_were_written(runs: list[Path], tmp_path: Path) -> None:
    stored = load_tables(runs[0] / FILE)
    save_tables(stored, tmp_path / FILE)
    assert (tmp_path / FILE).read_bytes()[:2] == b"PK"
    again = load_tables(tmp_path / FILE)
    assert again.classes == list(CLASSES)
    assert again.limit == 100
    assert again.tables.mask.iou.tobytes() == stored.tables.mask.iou.tobytes()
    assert again.tables.score.dtype == stored.tables.score.dtype
