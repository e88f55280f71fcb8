"""The first README command, whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.conftest import run_in


@pytest.mark.slow
def test_it_learns_the_sample_dataset(tmp_path: Path) -> None:
    said = run_in(tmp_path, "quickstart", timeout=3600).stdout
    folder = tmp_path / "quickstart"
    result = json.loads((folder / "output" / "latest" / "evaluate_result.json").read_text(encoding="utf-8"))
    assert result["mask"]["AP"] >= 0.6
    assert (folder / "instance_segmentation.yaml").is_file()
    assert [path.suffix for path in sorted((folder / "results").iterdir())] == [".jpg", ".json"]
    for part in ("mask AP", "box AP", "train", "pipeline config", "picture"):
        assert part in said
