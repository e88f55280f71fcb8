from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from toolkit.errors import UserError
from toolkit.pipeline.config import load_pipeline_config
from toolkit.pipeline.thresholds import threshold_writer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    tree = {"Global": {"model_name": "Mask-RT-DETR-S"}, "Preprocess": [], "label_list": ["disc", "方", "bar"]}
    (folder / "inference.yml").write_text(yaml.safe_dump(tree, allow_unicode=True), encoding="utf-8")
    return folder


def write_config(folder: Path, generation: str, **module: Any) -> Path:
    if generation == "older":
        tree: dict[str, Any] = {"Pipeline": {"model": str(folder), "batch_size": 3, **module}}
    else:
        section = {"model_name": "Mask-RT-DETR-S", "model_dir": str(folder), "batch_size": 3, **module}
        tree = {"pipeline_name": "instance_segmentation", "SubModules": {"InstanceSegmentation": section}}
    file = folder.parent / "pipeline.yaml"
    file.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return file


@pytest.mark.parametrize("generation", ["current", "older"])
def test_thresholds_are_written_and_the_rest_stays(folder: Path, generation: str) -> None:
    file = write_config(folder, generation, threshold=0.4)
    threshold_writer(file)({"disc": 0.25, "方": 0.75, "bar": None})
    config = load_pipeline_config(file)
    assert config.threshold == {"disc": 0.25, "方": 0.75, "bar": 0.4}
    assert config.batch_size == 3
    threshold_writer(file)({"disc": None, "方": 0.5, "bar": None})
    assert load_pipeline_config(file).threshold == {"disc": 0.25, "方": 0.5, "bar": 0.4}
    assert [path.name for path in folder.parent.glob(".*")] == []


def test_classes_of_which_nothing_is_known_are_left_to_the_model(folder: Path) -> None:
    file = write_config(folder, "current")
    threshold_writer(file)({"disc": 0.25, "方": None, "bar": None})
    assert load_pipeline_config(file).threshold == {"disc": 0.25}


def test_refusals_come_first_and_change_nothing(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such pipeline config"):
        threshold_writer(tmp_path / "none.yaml")
    file = write_config(folder, "current", threshold=0.4)
    before = file.read_bytes()
    with pytest.raises(UserError, match="no class cube; there are disc"):
        threshold_writer(file)({"cube": 0.5})
    assert file.read_bytes() == before
