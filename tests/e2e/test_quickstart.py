"""The first README command, whole; the same with other models, cut short."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.conftest import run_in
from toolkit import bundled, quickstart
from toolkit.data import prepare
from toolkit.zoo import MODELS


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


@pytest.mark.slow
@pytest.mark.parametrize(
    "model", ["Mask-RT-DETR-S", "MaskRCNN-ResNet50-FPN", "Cascade-MaskRCNN-ResNet50-FPN", "SOLOv2"]
)
def test_it_goes_the_whole_way_with_any_family(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Full-size networks on a few pictures: those of two stages take minutes for a step.
    prepare.sample_dataset(bundled.sample_dataset(), tmp_path / "some", count=28)
    monkeypatch.setattr(quickstart, "sample_dataset", lambda: tmp_path / "some")
    monkeypatch.setitem(quickstart.FROM_SCRATCH, "train.epochs", 1)
    picture = quickstart.quickstart(model=model, output=tmp_path / "try")
    assert picture.is_file()
    result = json.loads((tmp_path / "try" / "output" / "latest" / "train_result.json").read_text(encoding="utf-8"))
    assert result["ended"] == "completed"


def test_every_family_has_a_learning_rate() -> None:
    assert set(quickstart.RATES) == {model.family for model in MODELS.values()}
