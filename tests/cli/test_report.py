"""`eval` and `compare` through the command line, of what is in a results file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from tests.evaluate.test_report import found_in
from tests.pictures import CLASSES, write_dataset
from toolkit.cli.main import app
from toolkit.data.coco import find_dataset
from toolkit.data.detections import coco_results
from toolkit.errors import UserError


def invoke(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_report_thresholds_and_comparison(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", val=12)
    split = find_dataset(data).val
    for name, miss in (("good", None), ("bad", 3)):
        rows = [row for key, one in found_in(split, miss=miss) for row in coco_results(key, one, split.category_ids)]
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    model = tmp_path / "inference"
    model.mkdir()
    tree = {"Global": {"model_name": "Mask-RT-DETR-S"}, "Preprocess": [], "label_list": list(CLASSES)}
    (model / "inference.yml").write_text(yaml.safe_dump(tree))
    module = {"model_name": "Mask-RT-DETR-S", "model_dir": str(model), "threshold": 0.5}
    config = tmp_path / "pipeline.yaml"
    config.write_text(
        yaml.safe_dump({"pipeline_name": "instance_segmentation", "SubModules": {"InstanceSegmentation": module}})
    )

    for name in ("good", "bad"):
        said = invoke(
            *("eval", "--predictions", str(tmp_path / f"{name}.json"), "--data", str(data)),
            *("--output", str(tmp_path / name), "--report", str(tmp_path / name / "report"), "--lang", "zh"),
            *("--set-thresholds", str(config), "--precision", "0.9"),
        )
        assert "thresholds of 2 classes" in said
        assert "评估" in (tmp_path / name / "report" / "report.html").read_text(encoding="utf-8")
    thresholds = yaml.safe_load(config.read_text())["SubModules"]["InstanceSegmentation"]["threshold"]
    assert set(thresholds) == set(CLASSES)
    assert all(0 < one <= 0.9 for one in thresholds.values())

    said = invoke("compare", str(tmp_path / "good"), str(tmp_path / "bad"), "--report", str(tmp_path / "compared"))
    assert "bad against good: -" in said
    assert (tmp_path / "compared" / "compare.html").is_file()


def test_a_config_that_is_not_there_is_said_before_anything_is_measured(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such pipeline config"):
        invoke("eval", "--predictions", "none.json", "--set-thresholds", str(tmp_path / "none.yaml"))
