"""The same calls of PaddleX 3.7.2 and of this package on one exported model: keys, kinds, order, files and their names.

PADDLEX_PYTHON=/path/to/python pytest -m paddlex -n 0 -s
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from matplotlib import get_data_path
from PIL import Image

from tests.export.conftest import pictures, recipe_of, tiny
from toolkit.export.run import export_model

pytestmark = [
    pytest.mark.paddlex,
    pytest.mark.skipif(
        "PADDLEX_PYTHON" not in os.environ, reason="PADDLEX_PYTHON does not name a Python that has PaddleX"
    ),
]
SCRIPT = Path(__file__).with_name("paddlex_api.py")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """What is seen of PaddleX and of this package."""
    # What other models find is compared in test_paddlex.py.
    name = "PP-YOLOE_seg-S"
    root = tmp_path_factory.mktemp(name)
    export_model(tiny(name), recipe=recipe_of(name), out=root / "inference", pictures=pictures(), source="generated")
    inputs = root / "inputs"
    (inputs / "below").mkdir(parents=True)
    rgb = [Image.fromarray(picture) for picture in pictures()]
    rgb[0].save(inputs / "ä 1.png")
    rgb[1].save(inputs / "b.jpg")
    rgb[2].save(inputs / "below" / "c.BMP")
    rgb[1].copy().save(inputs / "doc.pdf", save_all=True, append_images=[rgb[2].copy()])
    (inputs / "notes.txt").write_text("no picture")
    seen = []
    for python, module in ((os.environ["PADDLEX_PYTHON"], "paddlex"), (sys.executable, "toolkit")):
        output = root / f"{module}.json"
        # PaddleX would download the font that it draws with.
        font = Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
        environment = {**os.environ, "PADDLE_PDX_LOCAL_FONT_FILE_PATH": str(font), "PYTHONPATH": str(ROOT)}
        environment["PADDLE_PDX_CACHE_HOME"] = str(root / "cache")
        command = [python, str(SCRIPT), module, name, str(root / "inference"), str(inputs), str(output)]
        if module == "paddlex":
            del environment["PYTHONPATH"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False, env=environment)
        assert done.returncode == 0, done.stderr[-3000:]
        seen.append(json.loads(output.read_text(encoding="utf-8")))
    return seen[0], seen[1]


@pytest.mark.parametrize("given", ["picture", "folder", "pdf", "list"])
def test_results(both: tuple[Any, Any], given: str) -> None:
    theirs, ours = (one[given] for one in both)
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        # Of hundreds of rows near 0.05 one may fall on the other side, and a side of a box be rounded otherwise.
        counts = len(mine["boxes"]), len(other["boxes"])
        assert abs(counts[0] - counts[1]) <= 0.02 * counts[1]
        assert counts[1] > 5
        assert sum(a == b for a, b in zip(mine["cut"], other["cut"], strict=False)) >= 0.9 * counts[1]
        for key in set(other) - {"boxes", "cut"}:
            assert mine[key] == other[key], key


def test_the_best_rows_come_in_the_same_order(both: tuple[Any, Any]) -> None:
    theirs, ours = (one["picture"][0]["boxes"][:20] for one in both)
    assert [label for label, *_ in ours] == [label for label, *_ in theirs]
    assert [score for *_, score in ours] == pytest.approx([score for *_, score in theirs], abs=0.011)


def test_everything_else(both: tuple[Any, Any]) -> None:
    theirs, ours = both
    for key in set(theirs) - {"picture", "folder", "pdf", "list", "model", "default threshold"}:
        assert ours[key] == theirs[key], key
    for key in ("model", "default threshold"):
        assert ours[key] == pytest.approx(theirs[key], rel=0.02, abs=1), key
