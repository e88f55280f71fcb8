from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.pictures import CLASSES, write_dataset
from toolkit.errors import UserError
from toolkit.models import ppyoloe_seg
from toolkit.run import Run
from toolkit.train import fit as fit_module
from toolkit.train.start import resume_training, start_training
from toolkit.weights.load import read_weights


def overrides(data: Path, **more: Any) -> dict[str, Any]:
    return {
        "model.options": ppyoloe_seg.TINY,
        "data.path": str(data),
        "data.input_size": [64, 64],
        "data.workers": 0,
        "train.epochs": 2,
        "train.batch_size": 4,
        "train.pretrained": "none",
        **more,
    }


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "Bilder für Tests")


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    output = tmp_path_factory.mktemp("straight")
    run, _ = start_training("PP-YOLOE_seg-S", overrides=overrides(data), device="cpu", output=output)
    return run


def test_a_run_leaves_what_it_promises(finished: Run) -> None:
    result = json.loads(finished.result.read_text(encoding="utf-8"))
    assert result["ended"] == "completed"
    assert result["epochs"] == 2
    assert result["steps"] == 4
    assert result["classes"] == list(CLASSES)
    assert 0 <= result["best"]["mask"]["AP"] <= 1
    assert finished.recipe().classes == list(CLASSES)
    assert read_weights(finished.best_weights)
    assert list(finished.visualdl.glob("*.log"))
    assert "epoch 2/2" in finished.log.read_text(encoding="utf-8")


def test_metrics_have_every_step_and_every_evaluation(finished: Run) -> None:
    rows = [json.loads(line) for line in finished.metrics.read_text(encoding="utf-8").splitlines()]
    steps = [row for row in rows if "loss" in row]
    assert [row["step"] for row in steps] == [1, 2, 3, 4]
    assert all({"lr", "images_per_s", "loss_cls"} <= set(row) for row in steps)
    assert [row["epoch"] for row in rows if "mask" in row] == [1, 2]


def test_an_interrupted_and_resumed_run_ends_with_the_same_weights(
    data: Path, finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0
    to_tensors = fit_module.to_tensors

    def interrupt(batch: dict[str, Any]) -> dict[str, Any]:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return to_tensors(batch)

    monkeypatch.setattr(fit_module, "to_tensors", interrupt)
    with pytest.raises(UserError, match="go on with: seg-tune train --resume"):
        start_training("PP-YOLOE_seg-S", overrides=overrides(data), device="cpu", output=tmp_path)
    interrupted = Run.find(None, output=tmp_path)
    assert json.loads(interrupted.result.read_text(encoding="utf-8"))["ended"] == "interrupted"

    monkeypatch.undo()
    _, result = resume_training(output=tmp_path, device="cpu")
    assert result["ended"] == "completed"
    straight, resumed = read_weights(finished.best_weights), read_weights(interrupted.best_weights)
    assert set(straight) == set(resumed)
    assert all(np.array_equal(straight[name], resumed[name]) for name in straight)


def test_resuming_takes_no_other_settings(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"leave out train\.lr"):
        resume_training(output=tmp_path, ignored=["train.lr"])


def test_resuming_on_other_data_is_refused(finished: Run, tmp_path: Path) -> None:
    other = write_dataset(tmp_path / "other", train=5)
    run = Run(tmp_path / "run")
    shutil.copytree(finished.path, run.path)
    run.result.unlink()
    tree = yaml.safe_load(run.recipe_file.read_text(encoding="utf-8"))
    tree["data"]["path"] = str(other)
    run.recipe_file.write_text(yaml.safe_dump(tree), encoding="utf-8")
    with pytest.raises(UserError, match="started on other data"):
        resume_training(run.path, device="cpu")


def test_a_finished_run_is_not_resumed(finished: Run) -> None:
    with pytest.raises(UserError, match="has ended"):
        resume_training(finished.path, device="cpu")


def test_a_loss_that_is_not_finite_ends_the_run_and_names_the_pictures(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not finite in epoch \d, step \d, pictures with id"):
        start_training("PP-YOLOE_seg-S", overrides=overrides(data, **{"train.lr": 1e30}), device="cpu", output=tmp_path)
    run = Run.find(None, output=tmp_path)
    assert json.loads(run.result.read_text(encoding="utf-8"))["ended"].startswith("failed: ")


def test_nothing_is_written_for_settings_that_cannot_be(data: Path, tmp_path: Path) -> None:
    output = tmp_path / "output"
    for wrong in ({"train.pretrained": str(tmp_path / "none.pdparams")}, {"train.epochs": 0}, {"model.name": "YOLO"}):
        with pytest.raises(UserError):
            start_training("PP-YOLOE_seg-S", overrides=overrides(data, **wrong), device="cpu", output=output)
    with pytest.raises(UserError, match="possible here"):
        start_training("PP-YOLOE_seg-S", overrides=overrides(data), device="gpu:77", output=output)
    assert not output.exists()


def test_a_wrong_option_or_freeze_leaves_no_half_run(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nope"):
        start_training(
            "PP-YOLOE_seg-S", overrides=overrides(data, **{"train.freeze": ["nope"]}), device="cpu", output=tmp_path
        )
    assert list(tmp_path.iterdir()) == []
