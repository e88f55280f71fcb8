"""Each way in which a dataset is broken is found at its place; training refuses just what is called an error."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.data.findings.broken import SPOILERS, Broken
from toolkit.data.coco import find_dataset
from toolkit.data.findings.check import Checked, check_sources
from toolkit.data.findings.table import CODES
from toolkit.data.layouts import find_sources
from toolkit.errors import UserError

SEEDS = 2
ALWAYS = {"split-small", "class-few"}
"""Of datasets of six pictures."""


def spoilt(name: str, seed: int, root: Path) -> tuple[Checked, list[tuple[str, str, str]]]:
    broken = Broken(root)
    expected = SPOILERS[name](broken, np.random.default_rng([seed, *name.encode()]))
    broken.write()
    return check_sources(find_sources(root)), expected


def test_there_is_nothing_in_a_sound_dataset(tmp_path: Path) -> None:
    checked = check_sources(find_sources(Broken(tmp_path).write()))
    assert {finding.code.name for finding in checked.findings} == ALWAYS
    assert find_dataset(tmp_path).train.notes == ()


def test_there_are_two_hundred_datasets_and_forty_kinds() -> None:
    kinds = {row[0] for name in SPOILERS for row in expected_of(name)}
    assert SEEDS * len(SPOILERS) >= 200
    assert len(kinds) >= 40
    # What needs more than six small pictures has tests of its own.
    assert set(CODES) - kinds == {"file-unreadable", "image-huge", "instance-dropped", "instance-below-grid"}


def expected_of(name: str) -> list[tuple[str, str, str]]:
    return SPOILERS[name](Broken(Path()), np.random.default_rng(0))


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("name", SPOILERS)
def test_it_is_found_at_its_place(name: str, seed: int, tmp_path: Path) -> None:
    checked, expected = spoilt(name, seed, tmp_path / "data")
    found = {(f.code.name, f.split, f.path): f for f in checked.findings}
    for row in expected:
        assert row in found, (row, sorted(found))
        finding = found[row]
        assert finding.file == tmp_path / "data" / "annotations" / f"instance_{row[1]}.json"
        for lang in ("en", "zh"):
            assert finding.text(lang)
            assert "{" not in finding.text(lang).replace("{'", "").replace("{}", ""), finding.text(lang)
        assert "\n" not in finding.line()
    for finding in checked.findings:
        assert str(finding.as_dict("zh"))
    errors = checked.findings.count("error")
    if errors:
        with pytest.raises(UserError) as refused:
            find_dataset(tmp_path / "data")
        assert "\n" not in str(refused.value)
    else:
        find_dataset(tmp_path / "data")


HOSTILE = """
import json, resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_AS, (3 * 2**30, 3 * 2**30))
resource.setrlimit(resource.RLIMIT_CPU, (120, 120))
from toolkit.data.findings.check import check_sources
from toolkit.data.layouts import find_sources
for root in sys.argv[1:]:
    checked = check_sources(find_sources(Path(root)))
    print(json.dumps(sorted({f.code.name for f in checked.findings if f.code.severity == "error"})))
"""


def test_hostile_files_neither_hang_nor_crash(tmp_path: Path) -> None:
    side = 65_535
    rng = np.random.default_rng(0)
    hostile = {
        "zigzag": [rng.uniform(0, 40, 800_000).tolist()],
        "parts": [[1, 1, 2, 1, 2, 2]] * 200_000,
        "star": [np.tile([0.0, 0.0, 47.0, 35.0], 20_000).tolist()],
        "many runs": {"size": [36, 48], "counts": [0, 1] * 2_000_000},
        "long string": {"size": [36, 48], "counts": "0" * 5_000_000},
        "deep": [[[[[[[[]]]]]]]] * 1000,
        "huge picture": [[0, 0, side, 0, side, side, 0, side]],
    }
    expected = {
        "zigzag": ["outline-too-long"],
        "parts": ["outline-too-long"],
        "star": [],
        "many runs": ["rle-sum"],
        "long string": ["rle-sum"],
        "deep": ["polygon-not-numbers"],
        "huge picture": ["image-size-mismatch"],
    }
    for name, segmentation in hostile.items():
        broken = Broken(tmp_path / name)
        broken.trees["train"]["annotations"][0]["segmentation"] = segmentation
        if name == "huge picture":
            broken.trees["train"]["images"][0].update(width=side, height=side)
        broken.write()
    done = subprocess.run(
        [sys.executable, "-c", HOSTILE, *(str(tmp_path / name) for name in hostile)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert dict(zip(hostile, map(json.loads, done.stdout.splitlines()), strict=True)) == expected


def test_a_file_without_permission_or_a_folder_in_its_place(tmp_path: Path) -> None:
    broken = Broken(tmp_path)
    broken.write()
    file = tmp_path / "annotations" / "instance_val.json"
    file.unlink()
    file.mkdir()
    codes = {f.code.name for f in check_sources(find_sources(tmp_path)).findings}
    assert "file-unreadable" in codes


def test_pictures_are_opened_evenly(tmp_path: Path) -> None:
    broken = Broken(tmp_path)
    for row in (1, 3, 4, 5):
        broken.files[f"images/train {row}.png"] = b"broken"
    broken.write()
    checked = check_sources(find_sources(tmp_path), max_images=3)
    assert sorted(checked.looks["train"].digests) == [0, 2]
    assert [f.path for f in checked.findings if f.code.name == "image-unreadable"] == ["images[4].file_name"]
    assert not check_sources(find_sources(tmp_path), max_images=0).findings.count("error")


def test_outlines_that_cross_themselves_by_a_hair_are_no_finding(tmp_path: Path) -> None:
    broken = Broken(tmp_path)
    broken.trees["train"]["annotations"][0].update(
        segmentation=[[2, 2, 20, 2, 20, 20, 10, 20, 10.3, 20.2, 10.1, 19.9, 2, 20]], area=324, bbox=[2, 2, 18, 18]
    )
    broken.write()
    assert {finding.code.name for finding in check_sources(find_sources(tmp_path)).findings} == ALWAYS
