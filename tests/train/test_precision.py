"""Mixed precision by the book: what a CPU that stands in for an accelerator can show."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from paddle import nn

from tests.pictures import write_dataset
from tests.train.conftest import StandIn
from toolkit.errors import UserError
from toolkit.evaluate.detect import detect_prepared
from toolkit.models import ppyoloe_seg
from toolkit.recipe import Ema, load_recipe
from toolkit.run import Run
from toolkit.train import fit as fit_module
from toolkit.train.checkpoint import Progress, State
from toolkit.train.distributed import average_gradients, count, join, rank
from toolkit.train.ema import MovingAverage
from toolkit.train.launch import launch
from toolkit.train.lr_finder import find_lr
from toolkit.train.optim import NORMS, build_optimizer
from toolkit.train.precision import LossScaler, Precision
from toolkit.train.start import resume_training, start_training
from toolkit.train.step import Learner, train_step
from toolkit.weights.load import read_checkpoint, read_weights, write_atomically

HALVES = ("float16", "bfloat16")


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


def train(data: Path, output: Path, **more: Any) -> Run:
    return start_training("PP-YOLOE_seg-S", overrides=overrides(data, **more), device="cpu", output=output)[0]


def fits_half(value: np.ndarray, dtype: str) -> bool:
    """Whether rounding to `dtype` changes nothing."""
    return bool((paddle.to_tensor(value).astype(dtype).astype("float32").numpy() == value).all())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("precision") / "data")


@pytest.mark.parametrize("optimizer", ["AdamW", "Momentum"])
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.usefixtures("accelerator")
def test_files_of_a_run_in_o2_have_the_master_weights(
    data: Path, tmp_path: Path, dtype: str, optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LossScaler, "START", 64.0)  # so that no step is left out
    mixed = {"train.amp": "O2", "train.amp_dtype": dtype, "train.ema": None, "train.epochs": 1}
    run = train(data, tmp_path, **mixed, **{"train.optimizer.name": optimizer})
    best, checkpoint = read_weights(run.best_weights), read_checkpoint(run.checkpoint)["model"]
    others = read_weights(run.best_safetensors), read_weights(run.checkpoint)
    for name, value in best.items():
        assert value.dtype == np.float32
        assert all(np.array_equal(value, other[name]) for other in (checkpoint, *others))
    exact = [name for name, value in best.items() if "conv.weight" in name and not fits_half(value, dtype)]
    assert len(exact) > 20


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.usefixtures("accelerator")
def test_a_run_in_o2_is_resumed_bit_for_bit(
    data: Path, tmp_path: Path, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LossScaler, "START", 64.0)  # so that no step is left out
    mixed = {"train.amp": "O2", "train.amp_dtype": dtype, "train.ema": {"decay": 0.9, "ramp": "threshold"}}
    straight = train(data, tmp_path / "straight", **mixed, **{"train.optimizer.name": "AdamW"})
    with pytest.raises(UserError, match="saved at step 1"):
        start_training(recipe=straight.recipe_file, device="cpu", output=tmp_path / "halted", time_limit=1e-9)
    halted = Run.find(None, output=tmp_path / "halted")
    half = read_checkpoint(halted.checkpoint)["model"]
    assert any(not fits_half(value, dtype) for value in half.values())
    resume_training(halted.path, device="cpu")
    first, second = (read_checkpoint(run.checkpoint) for run in (straight, halted))
    assert (first["progress"]["step"], first["precision"]) == (second["progress"]["step"], second["precision"])
    for kind in ("model", "optimizer"):
        np.testing.assert_equal(second[kind], first[kind])
    np.testing.assert_equal(second["ema"], first["ema"])
    name = next(name for name in first["optimizer"] if name.endswith("conv.weight"))
    moments = first["optimizer"][name]
    assert {value.dtype for value in moments.values()} == {np.dtype("float32")}
    best = read_weights(straight.best_weights)
    assert all(value.dtype == np.float32 for value in best.values())
    assert not fits_half(best[name], dtype)
    np.testing.assert_equal(read_weights(halted.best_weights), best)


def test_scaling_the_loss_changes_no_bit_of_a_training(
    data: Path, tmp_path: Path, accelerator: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scale is a power of two, and what stands in for an accelerator computes `O1` in float32."""
    scaled = train(data, tmp_path / "scaled", **{"train.amp": "O1"})
    assert read_checkpoint(scaled.checkpoint)["precision"] == {"scale": 2.0**16, "incr_count": 4}
    # A dry run's steps and evaluations, the run's steps, its evaluations.
    assert accelerator.casts == [("O1", "float16")] * (5 + 2 + 4 + 2)
    monkeypatch.undo()
    plain = train(data, tmp_path / "plain")
    np.testing.assert_equal(read_weights(scaled.best_weights), read_weights(plain.best_weights))
    losses, norms = (
        [[json.loads(line).get(key) for line in run.metrics.read_text().splitlines()] for run in (scaled, plain)]
        for key in ("loss", "grad_norm")
    )
    assert losses[0] == losses[1]
    assert norms[0] == norms[1]


def test_estimates_and_the_learning_rate_finder_compute_as_the_run_does(
    data: Path, tmp_path: Path, accelerator: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixed = {"train.amp": "O2", "train.amp_dtype": "bfloat16"}
    find_lr("PP-YOLOE_seg-S", overrides=overrides(data, **mixed), device="cpu", steps=20, low=1e-5, high=1e-2)
    assert accelerator.casts == [("O2", "bfloat16")] * 20
    accelerator.casts.clear()
    monkeypatch.setattr(fit_module, "fit", lambda *_, **__: None)
    train(data, tmp_path, **mixed, **{"train.batch_size": "auto", "train.epochs": 1})
    assert len(accelerator.casts) > 2 * 7
    assert set(accelerator.casts) == {("O2", "bfloat16")}


def toy(**more: Any) -> Learner:
    """Linear layers and the three kinds of norms, of which the first layer is frozen."""
    paddle.seed(0)
    layers = nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 4), nn.GroupNorm(1, 4), nn.BatchNorm1D(4), nn.Linear(4, 1)
    net = nn.Sequential(*layers)
    net[0].weight.stop_gradient = net[0].bias.stop_gradient = True

    class Model(nn.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, batch: dict[str, Any]) -> dict[str, Any]:
            return {"loss": self.net(batch["image"]).square().mean()}

    train = load_recipe("Mask-RT-DETR-S", {f"train.{key}": value for key, value in more.items()}).train
    model = Model()
    optim = build_optimizer(model, train)
    precision = Precision(train, model, optim)
    if precision.scaler:
        precision.scaler.scale = 1024.0  # nothing here overflows at that
    ema = MovingAverage(model, Ema(decay=0.9, ramp="threshold"), precision.masters)
    return Learner(model, optim, precision, ema, train.clip_norm)


def batch(factor: float = 1.0) -> dict[str, Any]:
    return {"image": factor * np.random.default_rng(3).normal(size=(5, 3)).astype("float32"), "image_ids": [0] * 5}


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.usefixtures("accelerator")
def test_o2_casts_all_but_norms_and_keeps_every_bit_of_what_was_loaded(dtype: str) -> None:
    learner = toy(amp="O2", amp_dtype=dtype)
    plain = toy()
    for layer in learner.model.sublayers():
        expected = paddle.float32 if isinstance(layer, (*NORMS, nn.BatchNorm1D)) else getattr(paddle, dtype)
        assert all(p.dtype == expected for p in layer.parameters(include_sublayers=False))
    loaded = {name: value.numpy() for name, value in plain.model.state_dict().items()}
    np.testing.assert_equal(learner.precision.weights(), loaded)
    np.testing.assert_equal(learner.evaluated_weights(), loaded)
    assert not fits_half(loaded["net.0.weight"], dtype), "a frozen one"
    for _ in range(3):
        train_step(learner, [batch()], lr=1e-4)
    weights = learner.precision.weights()
    for name, value in learner.model.state_dict().items():
        rounded = paddle.to_tensor(weights[name]).astype(value.dtype).astype("float32")
        np.testing.assert_array_equal(rounded.numpy(), value.astype("float32").numpy())
    assert np.abs(weights["net.2.weight"] - loaded["net.2.weight"]).max() > 0
    np.testing.assert_array_equal(weights["net.0.weight"], loaded["net.0.weight"])


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.usefixtures("accelerator")
def test_the_average_is_of_master_weights_and_goes_away_without_trace(dtype: str) -> None:
    learner = toy(amp="O2", amp_dtype=dtype)
    name, expected = "net.2.weight", learner.precision.weights()["net.2.weight"]
    for step in range(4):
        train_step(learner, [batch()], lr=1e-3)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * learner.precision.weights()[name]
    np.testing.assert_allclose(learner.evaluated_weights()[name], expected, rtol=1e-6)
    assert np.abs(expected - learner.precision.weights()[name]).max() > 1e-4
    assert learner.evaluated_weights()[name].dtype == np.float32
    before = learner.precision.weights()
    live = {key: value.astype("float32").numpy() for key, value in learner.model.state_dict().items()}
    with learner.as_evaluated():
        applied = learner.model.state_dict()[name].astype("float32").numpy()
        average = paddle.to_tensor(learner.evaluated_weights()[name])
        np.testing.assert_array_equal(applied, average.astype(dtype).astype("float32").numpy())
    np.testing.assert_equal(learner.precision.weights(), before)
    after = {key: value.astype("float32").numpy() for key, value in learner.model.state_dict().items()}
    np.testing.assert_equal(after, live)


@pytest.mark.usefixtures("accelerator")
def test_an_overflow_changes_nothing_but_the_scale() -> None:
    learner = toy(amp="O1")
    before, steps = learner.precision.weights(), learner.ema.steps
    statistics = [name for name in before if name.endswith(("._mean", "._variance"))]
    learner.precision.scaler.scale = 1e38
    values = train_step(learner, [batch(1e3)], lr=0.1)
    assert math.isfinite(values["loss"])
    assert "grad_norm" not in values
    assert learner.precision.scale == 0.5e38
    after = learner.precision.weights()
    assert all(np.array_equal(after[name], before[name]) for name in before if name not in statistics)
    assert learner.ema.steps == steps
    learner.precision.scaler.scale = 1024.0
    assert train_step(learner, [batch()], lr=0.1)["grad_norm"] > 0
    assert learner.ema.steps == steps + 1


@pytest.mark.usefixtures("accelerator")
def test_steps_go_on_after_one_that_was_not_allowed() -> None:
    learner = toy(amp="O1")
    assert math.isnan(train_step(learner, [batch(math.nan)], lr=0.1)["loss"])
    before = learner.precision.weights()
    assert all(np.isfinite(value).all() for name, value in before.items() if "weight" in name)
    learner.model.net[4]._mean.set_value(np.zeros(4, "float32"))
    learner.model.net[4]._variance.set_value(np.ones(4, "float32"))
    train_step(learner, [batch()], lr=0.1)
    assert not np.array_equal(learner.precision.weights()["net.5.weight"], before["net.5.weight"])


def test_the_scale_grows_while_nothing_overflows_and_ends_at_one() -> None:
    scaler = LossScaler()
    assert [scaler.overflowed(math.inf), scaler.overflowed(1.0), scaler.scale] == [True, False, 2.0**15]
    for _ in range(LossScaler.GROW_AFTER - 1):
        assert not scaler.overflowed(1.0)
    assert scaler.scale == 2.0**16
    for _ in range(16):
        assert scaler.overflowed(math.nan)
    assert scaler.scale == 1
    assert not scaler.overflowed(math.nan), "the guard is to see that"


def test_clipping_takes_the_scale_out(accelerator: StandIn) -> None:
    scaled = toy(amp="O1", clip_norm=1e-3)
    plain = toy(amp="O1", amp_dtype="bfloat16", clip_norm=1e-3)
    assert plain.precision.scaler is None
    norms = [train_step(learner, [batch(), batch()], lr=0.1)["grad_norm"] for learner in (scaled, plain)]
    assert norms[0] == norms[1] > 1e-3
    for ours, theirs in zip(scaled.precision.weights().values(), plain.precision.weights().values(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    assert accelerator.casts == [("O1", "float16")] * 2 + [("O1", "bfloat16")] * 2


@pytest.mark.usefixtures("accelerator")
def test_checkpoints_in_float16_of_version_0_1_are_read(tmp_path: Path) -> None:
    """They had rounded weights, master weights beside them, and the state of Paddle's scaler."""
    learner = toy(amp="O2")
    train_step(learner, [batch()], lr=0.1)
    State(learner.model, learner.optim, None, learner.precision, Progress(step=1), {}).save(tmp_path / "new")
    tree = read_checkpoint(tmp_path / "new")
    masters = {name: tree["model"][name] for name in learner.precision.masters if name != "net.0.weight"}
    tree["model"] |= {name: value.astype("float16") for name, value in masters.items()}
    tree["master_weights"] = masters
    tree["precision"] = {"scale": np.array([1024.0], "float32"), "incr_ratio": 2.0, "incr_count": 7, "decr_count": 0}
    write_atomically(tmp_path / "old", tree)
    other = toy(amp="O2")
    State(other.model, other.optim, None, other.precision, Progress(), {}).restore(tmp_path / "old")
    assert (other.precision.scale, other.precision.scaler.finite_steps) == (1024.0, 7)
    np.testing.assert_equal(other.precision.weights(), learner.precision.weights())
    np.testing.assert_equal(read_weights(tmp_path / "old"), read_weights(tmp_path / "new"))
    for one in (learner, other):
        one.precision.scaler.scale = 1024.0
        train_step(one, [batch()], lr=0.1)
    np.testing.assert_equal(other.precision.weights(), learner.precision.weights())


@pytest.mark.parametrize("dtype", HALVES)
def test_a_device_without_it_is_refused_before_anything_is_written(
    data: Path, tmp_path: Path, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paddle.device, "get_device", lambda: "npu:0")
    with pytest.raises(UserError, match=f"train.amp_dtype {dtype}: npu:0 does not compute in it"):
        train(data, tmp_path, **{"train.amp": "O1", "train.amp_dtype": dtype})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", HALVES)
def test_what_a_network_answers_in_few_bits_is_evaluated_in_float32(
    dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Network:
        mask_frame, mask_clip = "image", False

        def network(self, *_: Any) -> list[Any]:
            return [paddle.to_tensor([0.1, 2.5]).astype(dtype), paddle.to_tensor([3])]

    seen: list[Any] = []
    monkeypatch.setattr("toolkit.data.detections.detect", lambda network, *_, **__: seen.extend(network()))
    detect_prepared(Network(), [])  # type: ignore[arg-type]
    assert [value.dtype for value in seen] == [np.float32, np.int64]
    assert seen[0] == pytest.approx([0.1, 2.5], rel=1e-2)


def gradients(device: str) -> list[tuple[str, float]]:
    """Averages over two processes of gradients in float16 and float32, one of which one process has not."""
    join()
    low, high = paddle.zeros([2]).astype("float16"), paddle.zeros([3])
    for tensor in (low, high):
        tensor.stop_gradient = False
    if rank() == 0 or count() == 1:
        low.grad = paddle.full([2], 40000.0).astype("float16")
    high.grad = paddle.full([3], float(rank() + 1))
    average_gradients([low, high])
    return [(str(t.grad.dtype), float(t.grad.astype("float32")[0])) for t in (low, high)]


def test_gradients_of_several_kinds_are_averaged() -> None:
    assert launch(gradients, ["cpu", "cpu"]) == [("paddle.float16", 20000.0), ("paddle.float32", 1.5)]
