"""From a folder of pictures to predictions, through the command line alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.e2e.conftest import Project, run_in
from tests.e2e.test_serve import service_of
from tests.pictures import CLASSES, write_dataset
from toolkit import create_pipeline
from toolkit.data.coco import find_dataset


def test_training_says_what_it_does(project: Project) -> None:
    said = project.said["train"].stderr
    assert "8 pictures to train on, 4 to evaluate on, 2 classes" in said
    assert "scaled to batch 4" in said or "learning rate" in said
    assert "epoch 2/2" in said
    assert "best mask AP" in said


def test_the_run_holds_what_the_docs_promise(project: Project) -> None:
    expected = (
        "recipe.yaml",
        "train.log",
        "metrics.jsonl",
        "vdl",
        "best_model/best_model.pdparams",
        "last/checkpoint.pdckpt",
        "train_result.json",
        "evaluate_result.json",
    )
    assert [name for name in expected if not (project.run / name).exists()] == []


def test_eval_reports_headline_and_classes(project: Project) -> None:
    result = json.loads((project.run / "evaluate_result.json").read_text(encoding="utf-8"))
    assert result["pictures"] == 4
    assert set(result["mask_by_class"]) == set(CLASSES)
    assert 0 <= result["mask"]["AP"] <= 1
    assert result["mask"]["APl"] is None, "no object is that large"
    assert "n/a" in project.said["eval"].stdout
    trained = json.loads((project.run / "train_result.json").read_text(encoding="utf-8"))
    assert result["mask"]["AP"] == pytest.approx(trained["best"]["mask"]["AP"], abs=1e-6)


def test_the_export_holds_what_paddlex_needs_and_more(project: Project) -> None:
    folder = project.run / "inference"
    for name in ("inference.json", "inference.pdiparams", "inference.yml", "certificate.json", "README.md"):
        assert (folder / name).is_file(), name
    description = yaml.safe_load((folder / "inference.yml").read_text(encoding="utf-8"))
    assert description["Global"]["model_name"] == project.model
    assert description["label_list"] == list(CLASSES)
    config = yaml.safe_load((project.folder / "pipeline.yaml").read_text(encoding="utf-8"))
    module = config["SubModules"]["InstanceSegmentation"]
    assert module["model_name"] == project.model
    assert Path(module["model_dir"]).samefile(folder)


def test_predict_saves_a_picture_and_json_that_agree(project: Project, tmp_path: Path) -> None:
    picture = project.folder / "my data" / "images" / "val 0.png"
    said = run_in(
        project.folder,
        *("predict", "--pipeline", "pipeline.yaml", "--input", str(picture), "--threshold", "0.05"),
        *("--save-path", str(tmp_path)),
    )
    assert "val 0.png" in said.stdout
    [saved] = tmp_path.rglob("*.json")
    tree = json.loads(saved.read_text(encoding="utf-8"))
    boxes = tree["boxes"]
    assert all(box["label"] in CLASSES and 0.05 <= box["score"] <= 1 for box in boxes)
    [drawn] = [path for path in tmp_path.rglob("*") if path.suffix in (".png", ".jpg")]
    assert Image.open(drawn).size == Image.open(picture).size


def test_predict_takes_a_folder(project: Project, tmp_path: Path) -> None:
    said = run_in(
        project.folder, "predict", "--input", "my data/images", "--save-path", str(tmp_path), "--threshold", "0.5"
    )
    assert said.stdout.count("instances") == 12
    assert len(list(tmp_path.rglob("*.json"))) == 12


def test_the_pipeline_from_python_equals_the_command(project: Project, tmp_path: Path) -> None:
    picture = project.folder / "my data" / "images" / "val 1.png"
    [result] = list(create_pipeline(project.folder / "pipeline.yaml").predict(str(picture), threshold=0.05))
    run_in(
        project.folder,
        *("predict", "--pipeline", "pipeline.yaml", "--input", str(picture), "--threshold", "0.05"),
        *("--save-path", str(tmp_path)),
    )
    [saved] = tmp_path.rglob("*.json")
    there = json.loads(saved.read_text(encoding="utf-8"))["boxes"]
    here = result.json["res"]["boxes"]
    assert [box["label"] for box in here] == [box["label"] for box in there]
    assert np.allclose([box["score"] for box in here], [box["score"] for box in there], atol=1e-5)


def test_a_finished_run_is_not_resumed(project: Project) -> None:
    said = run_in(project.folder, "train", "--resume", code=2)
    assert "has ended" in said.stderr


def test_eval_on_data_of_other_classes_is_refused(project: Project, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(project.folder / "my data", other)
    for file in (other / "annotations").iterdir():
        file.write_text(file.read_text().replace('"square"', '"cube"'))
    said = run_in(project.folder, "eval", "--data", str(other), code=2)
    assert "cube" in said.stderr
    assert said.stderr.count("\n") == 1


def figures(folder: Path) -> Any:
    return json.loads((folder / "evaluate_result.json").read_text(encoding="utf-8"))


def test_an_export_is_as_good_as_the_weights(project: Project, tmp_path: Path) -> None:
    engine = "paddle" if project.model == "PP-YOLOE_seg-S" else "onnxruntime"
    exported = ("--exported", "output/latest/inference", "--engine", engine)
    said = run_in(project.folder, "eval", *exported, "--output", str(tmp_path)).stdout
    assert f"{project.model} on {engine} on 4 pictures" in said
    there, here = figures(project.run), figures(tmp_path)
    assert here["engine"] == engine
    assert here["mask"]["AP"] == pytest.approx(there["mask"]["AP"], abs=0.002)
    assert here["box"]["AP"] == pytest.approx(there["box"]["AP"], abs=0.002)


@pytest.mark.parametrize("project", ["MaskRCNN-ResNet50-FPN"], indirect=True)
def test_a_service_and_a_file(project: Project, tmp_path: Path) -> None:
    """Masks of this family end at their box, as the contract has it, so that nothing is lost on the way."""
    with service_of(project) as service:
        run_in(project.folder, "eval", "--url", service.url, "--output", str(tmp_path))
    there = figures(project.run)
    assert figures(tmp_path)["mask"]["AP"] == pytest.approx(there["mask"]["AP"], abs=0.002)
    file = tmp_path / "results.json"
    file.write_text("[]", encoding="utf-8")
    run_in(project.folder, "eval", "--predictions", str(file), "--data", "my data", "--output", str(tmp_path))
    assert figures(tmp_path)["mask"]["AP"] == 0


@pytest.mark.parametrize("project", ["MaskRCNN-ResNet50-FPN"], indirect=True)
def test_a_run_knows_its_data(project: Project, tmp_path: Path) -> None:
    """`eval` on other data says so, and the card has what the model can be known by."""
    assert "note:" not in project.said["eval"].stdout
    write_dataset(tmp_path / "other", seed=1)
    said = run_in(project.folder, "eval", "--data", str(tmp_path / "other"), "--output", str(tmp_path)).stdout
    assert "is not the file that" in said
    origin = json.loads((project.run / "origin.json").read_text(encoding="utf-8"))
    assert origin["weights"] is None
    assert origin["data"]["pictures"] == 8
    card = (project.run / "inference" / "README.md").read_text(encoding="utf-8")
    assert origin["data"]["val annotations"] == figures(project.run)["annotations_sha256"]
    for text in ("## Intended use", "## Origin", "fresh weights", origin["data"]["train annotations"], origin["code"]):
        assert text in card


@pytest.mark.parametrize("project", ["MaskRCNN-ResNet50-FPN"], indirect=True)
def test_a_bundle_predicts_where_it_is_installed(project: Project, tmp_path: Path) -> None:
    bundle = str(tmp_path / "model.tar")
    run_in(project.folder, "weights", "bundle", "output/latest", "-o", bundle)
    assert "try: seg-tune predict" in run_in(tmp_path, "weights", "install", bundle, "-o", "here").stdout
    picture = str(project.folder / "my data" / "images" / "val 0.png")
    said = run_in(tmp_path, "predict", "--pipeline", "here/instance_segmentation.yaml", "--input", picture).stdout
    assert "val 0.png: " in said


@pytest.mark.parametrize("project", ["Mask-RT-DETR-S"], indirect=True)
def test_a_review_comes_back(project: Project, tmp_path: Path) -> None:
    new = tmp_path / "new"
    write_dataset(tmp_path / "other", seed=1)
    (tmp_path / "other" / "images").rename(new)
    (new / "broken.png").write_bytes(b"")
    folder, out = str(tmp_path / "review"), tmp_path / "merged"
    asked = ("review", "output/latest", "-o", folder, "--unlabelled", str(new), "--threshold", "0.02", "--count", "5")
    said = run_in(project.folder, *asked)
    assert "left out" in said.stderr
    files = sorted((tmp_path / "review").glob("0*.json"))
    assert len(files) == 5, said.stdout
    assert "unlabelled: " in said.stdout
    assert "annotated, not found" in said.stdout or "predicted, not annotated" in said.stdout
    for file in files:
        file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")), indent=2), encoding="utf-8")
    said = run_in(project.folder, "review", "--merge", folder, "--output", str(out))
    assert "5 of 5 pictures taken in" in said.stdout
    assert len(find_dataset(out).val.pictures) == 4
