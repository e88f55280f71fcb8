from __future__ import annotations

import json
import shutil
import signal
from contextlib import suppress
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
from toolkit.train.batch_size import fitting
from toolkit.train.rehearsal import Forecast
from toolkit.train.start import resume_training, start_training
from toolkit.train.step import Learner, train_step
from toolkit.weights.load import read_checkpoint, read_weights


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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("place", ["train_step", "truth_beside_found"])
def test_a_run_that_a_signal_ends_is_saved_and_ends_with_the_same_weights(
    data: Path, finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, place: str
) -> None:
    calls = 0
    original = getattr(fit_module, place)

    def with_signal(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:  # in the middle of an epoch, or of the first evaluation
            signal.raise_signal(number)
        return original(*arguments, **named)

    monkeypatch.setattr(fit_module, place, with_signal)
    before = signal.getsignal(number)
    with pytest.raises(UserError, match=r"saved at step \d, go on with: seg-tune train --resume --run"):
        start_training("PP-YOLOE_seg-S", overrides=overrides(data), device="cpu", output=tmp_path)
    assert signal.getsignal(number) == before
    interrupted = Run.find(None, output=tmp_path)
    assert interrupted.ended in ("interrupted", "asked to end (SIGTERM)")
    step = read_checkpoint(interrupted.checkpoint)["progress"]["step"]
    assert step == (3 if place == "train_step" else 2)

    monkeypatch.undo()
    _, result = resume_training(output=tmp_path, device="cpu")
    assert result["ended"] == "completed"
    straight, resumed = read_weights(finished.best_weights), read_weights(interrupted.best_weights)
    assert set(straight) == set(resumed)
    assert all(np.array_equal(straight[name], resumed[name]) for name in straight)


def test_a_second_ctrl_c_does_not_wait(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def twice(*_: Any, **__: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(fit_module, "train_step", twice)
    with pytest.raises(UserError, match="go on from the last checkpoint with"):
        start_training("PP-YOLOE_seg-S", overrides=overrides(data), device="cpu", output=tmp_path)
    run = Run.find(None, output=tmp_path)
    assert not run.checkpoint.exists()

    monkeypatch.undo()
    _, result = resume_training(output=tmp_path, device="cpu")  # from its beginning
    assert result["steps"] == 4


def test_a_run_out_of_time_is_saved_and_goes_on(data: Path, finished: Run, tmp_path: Path) -> None:
    ends = 0
    limit = {"device": "cpu", "output": tmp_path, "time_limit": 1e-9}
    with pytest.raises(UserError, match="time limit of 1e-09 minutes is reached; saved at step 1"):
        start_training("PP-YOLOE_seg-S", overrides=overrides(data), **limit)
    while Run.find(None, output=tmp_path).ended != "completed":
        ends += 1
        with suppress(UserError):
            resume_training(**limit)
    assert ends > 3
    straight, resumed = (read_weights(run.best_weights) for run in (finished, Run.find(None, output=tmp_path)))
    assert all(np.array_equal(straight[name], resumed[name]) for name in straight)


def test_a_run_without_progress_stops_early(data: Path, tmp_path: Path) -> None:
    hopeless = {"train.epochs": 9, "train.early_stop": 2, "train.lr": 1e-12}
    run, result = start_training("PP-YOLOE_seg-S", overrides=overrides(data, **hopeless), device="cpu", output=tmp_path)
    assert result["ended"] == "stopped early"
    assert result["epochs"] == result["best_epoch"] + 2 < 9
    with pytest.raises(UserError, match="has ended"):
        resume_training(run.path, device="cpu")


def test_resuming_takes_no_other_settings(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"leave out train\.lr"):
        resume_training(output=tmp_path, ignored=["train.lr"])


@pytest.fixture
def halted(finished: Run, tmp_path: Path) -> Run:
    """A copy of a run that looks as if it had been killed."""
    run = Run(tmp_path / "run")
    shutil.copytree(finished.path, run.path)
    run.result.unlink()
    return run


def everything(run: Run) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(run.path.rglob("*")) if path.is_file()}


def test_resuming_on_other_data_is_refused(halted: Run, tmp_path: Path) -> None:
    others = {
        "pictures": write_dataset(tmp_path / "fewer", train=5),
        "train annotations": write_dataset(tmp_path / "other", seed=1),
        "classes": write_dataset(tmp_path / "renamed"),
    }
    for file in (others["classes"] / "annotations").iterdir():
        file.write_text(file.read_text().replace('"square"', '"cube"'))
    for difference, folder in others.items():
        tree = yaml.safe_load(halted.recipe_file.read_text(encoding="utf-8"))
        tree["data"]["path"] = str(folder)
        halted.recipe_file.write_text(yaml.safe_dump(tree), encoding="utf-8")
        before = everything(halted)
        with pytest.raises(UserError, match=rf"other data \({difference} differs\)"):
            resume_training(halted.path, device="cpu")
        assert everything(halted) == before


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_a_checkpoint_that_was_cut_off_is_refused(halted: Run, share: float) -> None:
    content = halted.checkpoint.read_bytes()
    halted.checkpoint.write_bytes(content[: int(share * len(content))])
    before = everything(halted)
    with pytest.raises(UserError, match=r"checkpoint\.pdckpt: .*(empty|damaged or cut off)"):
        resume_training(halted.path, device="cpu")
    assert everything(halted) == before


def test_a_checkpoint_of_another_model_is_refused(halted: Run) -> None:
    text = halted.recipe_file.read_text(encoding="utf-8")
    halted.recipe_file.write_text(text.replace("width: 0.125", "width: 0.25"), encoding="utf-8")
    before = everything(halted)
    with pytest.raises(UserError, match="another model"):
        resume_training(halted.path, device="cpu")
    assert everything(halted) == before


def test_a_finished_run_is_not_resumed(finished: Run) -> None:
    with pytest.raises(UserError, match="has ended"):
        resume_training(finished.path, device="cpu")


def test_a_step_that_is_not_finite_is_skipped_and_its_pictures_are_saved(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def poisoned(learner: Learner, parts: list[dict[str, Any]], **named: Any) -> dict[str, float]:
        nonlocal calls
        calls += 1
        if calls == 2:
            parts[0]["image"][1, :, 5, 5] = np.nan
        return train_step(learner, parts, **named)

    monkeypatch.setattr(fit_module, "train_step", poisoned)
    run, result = start_training("PP-YOLOE_seg-S", overrides=overrides(data), device="cpu", output=tmp_path)
    assert (result["ended"], result["steps"]) == ("completed", 4)
    [line] = [line for line in run.log.read_text(encoding="utf-8").splitlines() if "not finite" in line]
    assert "step 2 skipped" in line
    assert line.count("train ") == 4, "the pictures are named"
    assert len(list((run.path / "not_finite" / "step-2").glob("*.png"))) == 4
    state = read_checkpoint(run.checkpoint)
    assert all(np.isfinite(value).all() for value in state["model"].values())
    assert all(np.isfinite(value).all() for value in state["ema"]["average"].values())


def test_steps_in_a_row_that_are_not_finite_end_the_run(data: Path, tmp_path: Path) -> None:
    wrong = {"train.lr": 1e30, "train.skip_at_most": 2}
    with pytest.raises(UserError, match=r"not finite in 2 steps in a row; lower --lr"):
        start_training("PP-YOLOE_seg-S", overrides=overrides(data, **wrong), device="cpu", output=tmp_path)
    assert str(Run.find(None, output=tmp_path).ended).startswith("failed: ")


def test_the_rehearsal_leaves_no_trace(
    data: Path, finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forecast = json.loads(finished.result.read_text(encoding="utf-8"))["forecast"]
    assert forecast["memory"] > 2**26
    assert forecast["seconds"] == pytest.approx(2 * (forecast["epoch_seconds"] + forecast["evaluation_seconds"]))
    assert "foretold: " in finished.log.read_text(encoding="utf-8")
    monkeypatch.setattr(fit_module, "rehearse", lambda *_: Forecast(0, 0, 0, 0, 0))
    run, _ = start_training("PP-YOLOE_seg-S", overrides=overrides(data), device="cpu", output=tmp_path)
    straight, other = read_weights(finished.best_weights), read_weights(run.best_weights)
    assert all(np.array_equal(straight[name], other[name]) for name in straight)


def test_a_run_without_room_for_its_checkpoints_does_not_begin(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit_module, "rehearse", lambda *_: Forecast(0, 10**18, 0, 0, 0))
    with pytest.raises(UserError, match=r"GB free, and the run needs 1000000000\.0"):
        start_training("PP-YOLOE_seg-S", overrides=overrides(data), device="cpu", output=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_batch_in_parts_counts_as_one_step(data: Path, tmp_path: Path) -> None:
    parts = overrides(data, **{"train.accumulate": 2})
    run, result = start_training("PP-YOLOE_seg-S", overrides=parts, device="cpu", output=tmp_path)
    assert result["steps"] == 4
    rows = [json.loads(line) for line in run.metrics.read_text(encoding="utf-8").splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4]
    with pytest.raises(UserError, match="cannot be trained on in batches of 3 equal parts"):
        start_training(
            "PP-YOLOE_seg-S", overrides=overrides(data, **{"train.accumulate": 3}), device="cpu", output=tmp_path
        )


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


def test_a_batch_size_is_found_and_the_rate_follows(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    automatic = overrides(data, **{"train.batch_size": "auto", "train.epochs": 1})
    run, _ = start_training("PP-YOLOE_seg-S", overrides=automatic, device="cpu", output=tmp_path)
    assert run.recipe().train.batch_size == 8, "there are no more pictures"
    assert "learning rate 0.001," in run.log.read_text(encoding="utf-8")


def test_the_largest_power_of_two_that_fits() -> None:
    assert fitting(1000, 1200, room=2000, pictures=99) == 8  # 800 + 100 each
    assert fitting(1000, 1200, room=2400, pictures=99) == 16
    assert fitting(1000, 1200, room=2400, pictures=9) == 8
    assert fitting(1000, 1200, room=10**9, pictures=10**6) == 64
    assert fitting(1000, 1200, room=950, pictures=99) == 1


def test_the_best_weights_are_there_for_other_frameworks_as_well(finished: Run) -> None:
    ours, theirs = read_weights(finished.best_weights), read_weights(finished.best_safetensors)
    assert set(ours) == set(theirs)
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_mixed_precision_says_that_the_cpu_has_none(data: Path, finished: Run, tmp_path: Path) -> None:
    mixed = overrides(data, **{"train.amp": "O1"})
    run, _ = start_training("PP-YOLOE_seg-S", overrides=mixed, device="cpu", output=tmp_path)
    assert "the CPU computes in float32 all the same" in run.log.read_text(encoding="utf-8")
    straight, other = read_weights(finished.best_weights), read_weights(run.best_weights)
    assert all(np.array_equal(straight[name], other[name]) for name in straight)
