from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.findings.broken import SPOILERS, Broken
from tests.data.test_repair import all_at_once
from toolkit.data.coco import find_dataset
from toolkit.data.findings.check import check_sources
from toolkit.data.layouts import find_sources
from toolkit.data.report import write_report
from toolkit.errors import UserError

SHAPES = Path(__file__).parents[2] / "datasets" / "shapes"
DATASET = find_dataset(SHAPES)


class Page(HTMLParser):
    """Ids, addresses and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.sources: list[str] = []
        self.tags: set[str] = set()
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.tags.add(tag)
        self.ids += [given["id"]] if "id" in given else []
        self.links += [given["href"]] if "href" in given else []
        self.sources += [given["src"]] if "src" in given else []

    def handle_data(self, data):
        self.words += f" {data}"


def report(root: Path, folder: Path, **options) -> tuple[Page, dict]:
    sources = find_sources(root)
    file = write_report(check_sources(sources), sources, folder, **options)
    return Page(file.read_text(encoding="utf-8")), json.loads((folder / "check_dataset_result.json").read_text())


def test_the_page_needs_nothing_from_outside(tmp_path):
    page, result = report(SHAPES, tmp_path)
    text = (tmp_path / "report.html").read_text()
    assert not re.search(r"(?:src|href)=\"(?!data:|#)|https?:|@import|url\(", text)
    assert "script" not in page.tags
    assert len(page.sources) >= 20
    for source in page.sources:
        assert base64.b64decode(source.partition(",")[2])[:2] == b"\xff\xd8"
    train, val = (len(split.pictures) for split in (DATASET.train, DATASET.val))
    assert {str(train), str(val), "3"} <= set(page.words.split())
    assert result == {
        "done_flag": True,
        "check_pass": True,
        "attributes": {
            "num_classes": 3,
            "train_samples": train,
            "train_sample_paths": result["attributes"]["train_sample_paths"],
            "val_samples": val,
            "val_sample_paths": result["attributes"]["val_sample_paths"],
        },
        "analysis": {"histogram": "check_dataset/histogram.svg"},
        "dataset_path": str(SHAPES),
        "show_type": "image",
        "dataset_type": "COCOInstSegDataset",
    }
    for split in ("train", "val"):
        paths = result["attributes"][f"{split}_sample_paths"]
        assert len(paths) == 10
        assert all(Image.open(tmp_path / path).size[0] > 50 for path in paths)
    assert (tmp_path / "check_dataset" / "histogram.svg").read_text().startswith("<svg xmlns=")


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_findings_link_to_their_pictures(tmp_path, lang):
    all_at_once(tmp_path / "data").write()
    page, result = report(tmp_path / "data", tmp_path / "report", lang=lang)
    assert result["check_pass"] is False
    assert result["err_type"]
    assert len(page.links) > 40
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    assert ("自相交" in page.words) == (lang == "zh")
    assert ("crosses itself" in page.words) == (lang == "en")


def test_names_are_no_markup(tmp_path):
    broken = Broken(tmp_path / "data")
    for tree in broken.trees.values():
        tree["categories"][0]["name"] = "<script>alert(1)</script>{{ 7 * 7 }}"
    broken.write()
    page, _ = report(tmp_path / "data", tmp_path / "report")
    assert "script" not in page.tags
    assert "<script>alert(1)</script>{{ 7 * 7 }}" in page.words
    assert "<script" not in (tmp_path / "report" / "check_dataset" / "histogram.svg").read_text()


@pytest.mark.parametrize("name", ["empty file", "val_missing", "no pictures", "no annotations", "no categories"])
def test_there_is_a_page_for_what_can_hardly_be_read(tmp_path, name):
    broken = Broken(tmp_path / "data")
    SPOILERS[name](broken, np.random.default_rng(0))
    broken.write()
    page, result = report(tmp_path / "data", tmp_path / "report")
    assert result["check_pass"] is False
    assert "Check failed" in page.words


def test_a_folder_that_cannot_be_written_to(tmp_path):
    (tmp_path / "report").write_text("a file")
    with pytest.raises(UserError, match="report: cannot be written to"):
        report(SHAPES, tmp_path / "report")
