"""Two processes over gloo compute what one does."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from paddle import nn

from tests.export.conftest import tiny_options
from tests.pictures import write_dataset
from tests.test_sixteen import drawn
from toolkit.devices import split_devices
from toolkit.errors import UserError
from toolkit.models import build_model, model_of, ppyoloe_seg
from toolkit.run import Run
from toolkit.train import distributed
from toolkit.train.launch import launch
from toolkit.train.start import resume_training, start_training
from toolkit.weights.load import read_checkpoint


def train(folder: Path, device: str, **more: Any) -> Run:
    overrides = {
        "model.options": ppyoloe_seg.TINY,
        "data.path": str(folder / "data"),
        "data.input_size": [64, 64],
        "data.workers": 0,
        "train.epochs": 10,
        "train.eval_every": 5,
        "train.batch_size": 4,
        # Small steps: the assignment of predictions to objects turns differences of a bit into others.
        "train.lr": 2e-4,
        "train.clip_norm": 1.0,
        "train.pretrained": "none",
        **more,
    }
    output = folder / device.replace(":", "-")
    run, result = start_training("PP-YOLOE_seg-S", overrides=overrides, device=device, output=output)
    assert result["ended"] == "completed"
    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("distributed")
    write_dataset(folder / "data")
    return folder


@pytest.fixture(scope="module")
def one(folder: Path) -> Run:
    return train(folder, "cpu")


@pytest.fixture(scope="module")
def two(folder: Path) -> Run:
    return train(folder, "cpu:2")


def rows(run: Run, key: str) -> list[Any]:
    lines = [json.loads(line) for line in run.metrics.read_text(encoding="utf-8").splitlines()]
    return [line[key] for line in lines if key in line]


def test_two_processes_have_the_losses_of_one(one: Run, two: Run) -> None:
    assert len(rows(one, "loss")) == 20
    assert rows(two, "loss") == pytest.approx(rows(one, "loss"), rel=1e-4)


def test_two_processes_end_with_the_weights_and_the_ap_of_one(one: Run, two: Run) -> None:
    first, second = (read_checkpoint(run.checkpoint)["model"] for run in (one, two))
    paddle.seed(0)
    start = {name: value.numpy() for name, value in model_of(one.recipe()).state_dict().items()}
    moved = sum(float(np.square(first[name] - start[name]).sum()) for name in start) ** 0.5
    apart = sum(float(np.square(first[name] - second[name]).sum()) for name in start) ** 0.5
    assert moved > 0.01
    assert apart < 0.01 * moved
    for ours, theirs in zip(rows(two, "mask"), rows(one, "mask"), strict=True):
        assert ours["AP"] == pytest.approx(theirs["AP"], abs=0.01)


def test_a_run_in_two_processes_goes_on_to_the_same_end(folder: Path, two: Run) -> None:
    with pytest.raises(UserError, match="time limit"):
        run_for_a_moment(folder)
    halted = Run.find(None, output=folder / "halted")
    assert read_checkpoint(halted.checkpoint)["progress"]["step"] == 1
    resume_training(halted.path, device="cpu:2")
    first, second = (read_checkpoint(run.checkpoint)["model"] for run in (two, halted))
    assert all(np.array_equal(first[name], second[name]) for name in first)


def run_for_a_moment(folder: Path) -> None:
    run = Run.find(None, output=folder / "cpu-2")
    start_training(recipe=run.recipe_file, device="cpu:2", output=folder / "halted", time_limit=1e-9)


def norms(device: str) -> list[np.ndarray]:
    """Output, gradients and running statistics of a batch norm on this process's half of a batch."""
    distributed.join()
    paddle.seed(0)
    x = 5 + paddle.randn([4, 3, 6, 5]) * paddle.to_tensor([1.0, 10.0, 0.1]).reshape([1, 3, 1, 1])
    weight = paddle.randn(x.shape)
    model = nn.Sequential(nn.BatchNorm2D(3))
    distributed.synchronize_norms(model)
    half = slice(2 * distributed.rank(), 2 * distributed.rank() + 2) if distributed.count() > 1 else slice(None)
    own = x[half]
    own.stop_gradient = False
    y = model(own)
    (y * weight[half]).sum().backward()
    distributed.average_gradients(model.parameters())
    parts = [distributed.gather(part.numpy()) for part in (y, own.grad)]
    statistics = [model[0]._mean, model[0]._variance]
    gradients = [distributed.count() * p.grad for p in (model[0].weight, model[0].bias)]
    return [*(np.concatenate(part) for part in parts), *(value.numpy() for value in (*statistics, *gradients))]


def test_a_norm_over_two_halves_is_the_norm_of_the_whole() -> None:
    for ours, theirs in zip(launch(norms, ["cpu", "cpu"]), norms("cpu"), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-5)


def losses(device: str, name: str) -> dict[str, float]:
    """Of two pictures with unlike numbers of objects; in two processes the mean of theirs, each with one picture."""
    distributed.join()
    paddle.seed(0)
    options = {**tiny_options(name), **({} if name == "SOLOv2" else {"sampling": "first"})}
    model = build_model(name, 3, (64, 64), **options)
    model.train()
    for layer in model.sublayers():
        if isinstance(layer, nn.BatchNorm2D):
            layer.eval()
    batch = drawn([(4, 4, 40, 40), (30, 20, 60, 60), (2, 30, 28, 62)], [(10, 30, 50, 50)])
    if distributed.count() > 1:
        batch = {key: value[distributed.rank() :][:1] for key, value in batch.items()}
    return distributed.average({key: float(value) for key, value in model(batch).items()})


@pytest.mark.parametrize("name", ["MaskRCNN-ResNet50-FPN", "Cascade-MaskRCNN-ResNet50-FPN", "SOLOv2"])
def test_losses_of_unlike_halves_are_those_of_the_whole(name: str) -> None:
    whole = losses("cpu", name)
    assert launch(losses, ["cpu", "cpu"], name=name) == pytest.approx(whole, rel=1e-4)


def fails(device: str, how: str) -> None:
    if os.environ["PADDLE_TRAINER_ID"] == "0":
        time.sleep(600)
    if how == "mendable":
        raise UserError("picture.png: not a picture")
    if how == "bug":
        raise ZeroDivisionError("no idea")
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("how", "said"),
    [("mendable", r"^picture\.png: not a picture$"), ("bug", "process 1 of 2 failed:(.|\n)*no idea"), ("kill", "-9")],
)
def test_one_that_fails_ends_the_others_and_is_heard(how: str, said: str) -> None:
    start = time.monotonic()
    with pytest.raises(UserError, match=said):
        launch(fails, ["cpu", "cpu"], how=how)
    assert time.monotonic() - start < 300, "the other would have slept"


def test_a_list_of_devices_is_one_for_each_process() -> None:
    assert split_devices("cpu:2") == ["cpu", "cpu"]
    assert split_devices("gpu:0,3") == ["gpu:0", "gpu:3"]
    assert [split_devices(name) for name in ("auto", "cpu", "gpu:1")] == [["auto"], ["cpu"], ["gpu:1"]]
    for wrong in ("gpu:0,0", "gpu:a,b"):
        with pytest.raises(UserError, match="write several as in"):
            split_devices(wrong)


def test_a_batch_that_cannot_be_divided_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="2 equal parts"):
        train(folder, "cpu:2", **{"train.batch_size": 3})


def test_what_paddle_says_of_itself_is_kept_off_the_screen(capfd: pytest.CaptureFixture[str]) -> None:
    launch(losses, ["cpu", "cpu"], name="SOLOv2")
    said = capfd.readouterr()
    for line in ("FLAGS", "tcp", "UserWarning"):
        assert line not in said.err + said.out
