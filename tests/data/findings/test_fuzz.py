"""Whatever stands in an annotation file, it is judged without an exception, as training does, and mended."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.findings.broken import HEIGHT, WIDTH, Broken, square
from toolkit.data.coco import find_dataset
from toolkit.data.findings.check import check_sources
from toolkit.data.layouts import find_sources
from toolkit.data.repair import repair
from toolkit.errors import UserError

STRANGE: list[Any] = [
    *(None, True, False, 0, 1, -1, 7, 3, 50, 2**63 - 1, 2**63, 2**64 - 1, -(2**63), 0.5, 1e308, -1e-300),
    *("", "7", "cat", "train 1.png", "😀", "\x00", "a" * 300, [], {}, [[]], [None], [1, 2, 3, 4], [[1, 2]]),
    *([square(1, 1, 30)], [square(-90, 1, 30)], [square(3, 3, 0.1)], [[0] * 6], [[1e308] * 8], [[5, 5] * 4]),
    *({"size": [HEIGHT, WIDTH], "counts": "0"}, {"size": [HEIGHT, WIDTH], "counts": [0, HEIGHT * WIDTH]}, {"": 1}),
]


def strange(tree: Any, rng: np.random.Generator) -> None:
    """Put something strange in some place."""
    node = tree
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            return
        key = keys[int(rng.integers(len(keys)))]
        if isinstance(node[key], (dict, list)) and rng.random() < 0.9:
            node = node[key]
            continue
        change = rng.random()
        if change < 0.7 or node is tree:
            node[key] = copy.deepcopy(STRANGE[int(rng.integers(len(STRANGE)))])
        elif change < 0.85:
            del node[key]
        elif isinstance(node, list):
            node.append(copy.deepcopy(node[key]))
        else:
            node[str(key) + " "] = copy.deepcopy(node[key])
        return


@pytest.mark.parametrize("seed", range(60))
def test_no_file_is_too_strange(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    broken = Broken(tmp_path / "data")
    for _ in range(int(rng.integers(1, 12))):
        strange(broken.trees[("train", "val")[int(rng.integers(2))]], rng)
    broken.write()
    sources = find_sources(tmp_path / "data")
    checked = check_sources(sources)
    errors = [finding.line() for finding in checked.findings if finding.code.severity == "error"]
    try:
        find_dataset(tmp_path / "data")
    except UserError:
        assert errors
    else:
        assert not errors
    hopeless = ""
    try:
        repair(checked, sources, tmp_path / "out")
    except UserError as refused:
        hopeless = str(refused)
    if hopeless:
        assert "cannot be mended" in hopeless
        return
    again = check_sources(find_sources(tmp_path / "out")).findings
    assert [finding.line() for finding in again if finding.code.severity == "error"] == []
    find_dataset(tmp_path / "out")
