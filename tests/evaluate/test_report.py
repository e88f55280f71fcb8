from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.data.test_report import Page
from tests.pictures import write_dataset
from toolkit.data.coco import Split, find_dataset
from toolkit.data.detections import Detections
from toolkit.data.images import read_rgb
from toolkit.data.masks import segmentation_to_crop
from toolkit.errors import UserError
from toolkit.evaluate import advice
from toolkit.evaluate.advice import told
from toolkit.evaluate.ap import Evaluator
from toolkit.evaluate.explain import explain
from toolkit.evaluate.gallery import Gallery
from toolkit.evaluate.score import Extras, score
from toolkit.evaluate.slices import brightness, by_third
from toolkit.evaluate.words import ADVICE, WORDS


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    return find_dataset(write_dataset(tmp_path_factory.mktemp("report") / "data", val=9, side=96)).val


def found_in(split: Split, *, miss: int | None = None, confused: int | None = None) -> Iterator[tuple[int, Detections]]:
    """All objects, but those of one picture; in another one they are of the other class."""
    for picture in split.pictures:
        truths = picture.annotations if picture.id != miss else []
        size = (picture.height, picture.width)
        crops = [segmentation_to_crop(one.segmentation, size) for one in truths]
        labels = [one.category if picture.id != confused else 1 - one.category for one in truths]
        yield (
            picture.id,
            Detections(
                np.array([crop.extent for crop in crops], np.float32).reshape(-1, 4),
                np.linspace(0.9, 0.7, len(crops)).astype(np.float32),
                np.array(labels, np.int64),
                crops,
                size,
            ),
        )


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_report_is_one_page_and_the_same_as_json(split: Split, tmp_path: Path, lang: str) -> None:
    found = found_in(split, miss=3, confused=5)
    metrics = score(
        found,
        split,
        name="<model>",
        about={},
        folder=tmp_path,
        limit=100,
        extras=Extras(report=tmp_path / "report", lang=lang),  # type: ignore[arg-type]
    )
    tree = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))
    assert tree["headline"]["mask"] == metrics.mask
    assert tree["headline"]["box"] == metrics.box
    assert tree["headline"]["boundary"]["AP"] == pytest.approx(metrics.mask_ap, abs=0.01)
    low, high = (tree["intervals"]["mask"]["AP"][end] for end in ("low", "high"))
    assert low < metrics.mask_ap < high
    assert tree["errors"]["counts"]["class"] == 2
    assert tree["errors"]["counts"]["missed"] == 2
    assert np.sum(tree["confusion"]["matrix"]) == tree["objects"] == 18
    assert {bad["picture"] for bad in tree["worst"]} == {"val 3.png", "val 5.png"}
    assert sum(part["pictures"] for part in tree["slices"]["brightness"]) == 9

    text = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.sources)
    assert len(page.sources) == 4
    assert not re.search(r"https?://|url\(|@import", text)
    assert "&lt;model&gt;" in text
    assert WORDS[lang]["worst"] in text  # type: ignore[index]
    assert all(name in text for name in split.classes)
    assert f"{100 * metrics.mask_ap:.1f}" in text
    assert not re.search(r"\bNone\b|\bnan\b", text)


def test_a_report_of_nothing_found(split: Split, tmp_path: Path) -> None:
    nothing = ((number, found.best(0)) for number, found in found_in(split))
    score(nothing, split, name="m", about={}, folder=tmp_path, limit=100, extras=Extras(report=tmp_path / "r"))
    tree = json.loads((tmp_path / "r" / "report.json").read_text(encoding="utf-8"))
    assert tree["advice"][0]["name"] == "nothing_found"
    assert tree["errors"]["counts"]["missed"] == 18
    assert tree["by_class"][0]["threshold"] is None


def test_a_file_in_the_way_is_said_before_anything_is_measured(split: Split, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    def never() -> Iterator[tuple[int, Detections]]:
        raise AssertionError
        yield

    with pytest.raises(UserError, match="--report"):
        score(never(), split, name="", about={}, folder=tmp_path, limit=9, extras=Extras(report=tmp_path / "file"))
    with pytest.raises(UserError, match="--precision"):
        score(never(), split, name="", about={}, folder=tmp_path, limit=9, extras=Extras(precision=0.9))


def test_the_gallery_keeps_the_worst_whatever_their_order(split: Split) -> None:
    for pictures in (split.pictures, split.pictures[::-1]):
        gallery = Gallery(classes=2, threshold=0.5, most=2)
        evaluator = Evaluator(replace(split, pictures=pictures))
        for number, found in found_in(replace(split, pictures=pictures), miss=3, confused=5):
            [picture] = [p for p in pictures if p.id == number]
            gallery.add(picture, found.best(1) if number == 7 else found, evaluator.add(number, found))
        # Two missed and two false; two missed; what is given to it counts, not what is drawn.
        assert [(bad.picture.id, bad.missed, bad.false) for bad in gallery.worst()] == [(5, 2, 2), (3, 2, 0)]


def test_brightness_is_the_mean_grey_value_and_thirds_share_the_pictures(split: Split, tmp_path: Path) -> None:
    values = brightness([picture.path for picture in split.pictures])
    exact = [read_rgb(picture.path).mean() for picture in split.pictures]
    assert np.abs(values - exact).max() < 15
    evaluator = Evaluator(split)
    for number, found in found_in(split):
        evaluator.add(number, found)
    parts = by_third(evaluator.tables(), np.arange(9.0), classes=2, limit=100)
    assert [(part.low, part.high, part.pictures) for part in parts] == [(0, 2, 3), (3, 5, 3), (6, 8, 3)]
    assert all(part.ap.value == pytest.approx(1) for part in parts)
    assert by_third(evaluator.tables(), np.full(9, np.nan), classes=2, limit=100) == []
    assert by_third(evaluator.tables(), np.full(9, 3.0), classes=2, limit=100) == []
    uneven = by_third(evaluator.tables(), np.array([2.0] * 5 + [4] * 4), classes=2, limit=100)
    assert [(part.name, part.pictures) for part in uneven] == [("low", 5), ("high", 4)]
    assert np.isnan(brightness([tmp_path / "none.png"])).all()


def test_advice_has_all_its_words_in_both_languages(split: Split) -> None:
    evaluator = Evaluator(split, thorough=True)
    for number, found in found_in(split, miss=3, confused=5):
        evaluator.add(number, found)
    figures = explain(evaluator.tables(), split, limit=100, threshold=0.5)
    names = set()
    for most in ADVICE:
        changed = json.loads(json.dumps(figures))
        for kind in changed["errors"]["lost"]:
            changed["errors"]["lost"][kind] = 0.2 if kind == most else 0.01
        changed["headline"]["mask"] |= {"APs": 0.1, "APm": 0.5, "APl": 0.6}
        changed["headline"]["boundary"]["AP"] = 0.1
        changed["reliability"]["surplus"] = 0.3 if most == "too_sure" else -0.3
        ends = [{"value": 0.2, "low": 0.1, "high": 0.3}, {"value": 0.5, "low": 0.4, "high": 0.6}]
        dark = ends if most == "dark" else ends[::-1]
        changed["slices"] = {
            "brightness": [{"ap": end} for end in dark],
            "crowding": [{"ap": end} for end in ends[::-1]],
        }
        if most == "nothing_found":
            changed["errors"]["AP50"] = 0.0
        for piece in advice.advise(changed):
            names.add(piece["name"])
            for lang in ("en", "zh"):
                assert "{" not in told(piece, lang)  # type: ignore[arg-type]
    assert names == set(ADVICE)
    assert {*WORDS["en"]} == {*WORDS["zh"]}
