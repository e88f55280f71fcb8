"""Whether this package works on an accelerator: `pytest -m accelerator --device gpu:0`.

The project's own machines have none, so the checks have been run on a CPU only.
"""

from __future__ import annotations

import json
import math
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.accelerator.conftest import Command, Measure
from tests.accelerator.report import Report
from toolkit.bundled import sample_dataset
from toolkit.device import available_devices
from toolkit.models import ppyoloe_seg
from toolkit.pipeline.backends.engines import ENGINES
from toolkit.pipeline.exported import read_exported
from toolkit.quickstart import FROM_SCRATCH, RATES
from toolkit.run import Run
from toolkit.weights.load import read_checkpoint, read_weights

pytestmark = [pytest.mark.accelerator, pytest.mark.usefixtures("report")]

Say = Any
FAMILIES = (
    "PP-YOLOE_seg-S",
    "Mask-RT-DETR-S",
    "SOLOv2",
    "MaskRCNN-ResNet50-FPN",
    "Cascade-MaskRCNN-ResNet50-FPN",
)
LEARNING = {
    **FROM_SCRATCH,
    "train.lr": RATES["ppyoloe_seg"],
    "train.epochs": 8,
    "train.eval_every": 4,
    "train.schedule": {"name": "cosine", "warmup_steps": 10},
    "train.ema": {"decay": 0.95},
    "model.options": ppyoloe_seg.TINY,
    "data.path": str(sample_dataset()),
    "data.input_size": [96, 96],
}
SHORT = {**LEARNING, "data.input_size": [64, 64], "train.epochs": 2, "train.eval_every": 2, "train.batch_size": 40}
STOPPED = "--time-limit", "0.0001"
"""Ends a run after its first step."""
MODES = [pytest.param(*mode, id=" ".join(mode)) for mode in product(("O1", "O2"), ("float16", "bfloat16"))]


def train(command: Command, output: Path, device: str, settings: dict[str, Any], *more: str, **ends: str) -> Run:
    flags = [part for key, value in settings.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    where = ["--device", device, "--output", str(output)]
    command("train", "--model", "PP-YOLOE_seg-S", *flags, *where, *more, **ends)
    return Run.find(None, output=output)


def steps(run: Run) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in run.metrics.read_text(encoding="utf-8").splitlines()]
    return [row for row in rows if "loss" in row]


def losses(run: Run) -> list[float]:
    return [row["loss"] for row in steps(run)]


def result(run: Run) -> dict[str, Any]:
    tree: dict[str, Any] = json.loads(run.result.read_text(encoding="utf-8"))
    return tree


@pytest.fixture(scope="session")
def trained(command: Command, work: Path, device: str) -> Run:
    return train(command, work / "trained", device, LEARNING)


@pytest.fixture(scope="session")
def short(command: Command, work: Path, device: str) -> Run:
    return train(command, work / "short", device, SHORT)


@pytest.fixture(scope="session")
def exported(command: Command, work: Path, trained: Run) -> Path:
    command("export", "--run", str(trained.path), "--output", str(work / "exported"))
    return work / "exported"


@pytest.mark.parametrize("name", FAMILIES)
def test_detections_and_losses_are_those_of_the_cpu(name: str, measure: Measure, record_property: Say) -> None:
    # Without TensorFloat-32, which has a thousandth of float32's precision.
    found = measure("outputs", model=name, NVIDIA_TF32_OVERRIDE="0")
    record_property("said", found["said"])
    assert found["rows"] > 0
    assert found["holds"]
    cpu, here = found["losses"]
    # Mask-RT-DETR draws points and noise at random, others on another device.
    tolerance = 0.3 if name == "Mask-RT-DETR-S" else 1e-2
    assert here["loss"] == pytest.approx(cpu["loss"], rel=tolerance)


def test_a_training_learns(trained: Run, record_property: Say) -> None:
    about, found = result(trained), steps(trained)
    speed = [row["images_per_s"] for row in found][-1]
    record_property("said", f"mask AP {about['best']['mask']['AP']:.3f}, {speed:.0f} images/s")
    assert about["ended"] == "completed"
    assert len(found) == 240
    assert np.mean(losses(trained)[-30:]) < 0.5 * np.mean(losses(trained)[:30])
    assert about["best"]["mask"]["AP"] > 0.05


def test_a_training_that_is_stopped_goes_on(
    command: Command, work: Path, device: str, short: Run, record_property: Say
) -> None:
    halted = train(command, work / "halted", device, SHORT, *STOPPED, fails="saved at step 1")
    command("train", "--resume", "--run", str(halted.path), "--device", device)
    assert result(halted)["ended"] == "completed"
    straight, resumed = read_weights(short.best_weights), read_weights(halted.best_weights)
    exact = all(np.array_equal(straight[name], resumed[name]) for name in straight)
    apart = abs(losses(halted)[1] / losses(short)[1] - 1)
    said = "the weights are, bit for bit, those of a run that was not stopped"
    record_property("said", said if exact else f"the first step after it differs by {apart:.1e} of its loss")
    assert len(losses(halted)) == len(losses(short))
    # Accelerators add in an order that changes from run to run.
    assert exact or (device != "cpu" and apart < 1e-2)


@pytest.mark.parametrize(("level", "dtype"), MODES)
def test_mixed_precision(
    level: str, dtype: str, command: Command, work: Path, device: str, short: Run, record_property: Say
) -> None:
    if device == "cpu":
        pytest.skip("the CPU computes in float32 all the same")
    settings = {**SHORT, "train.amp": level, "train.amp_dtype": dtype}
    output = work / f"{level} {dtype}"
    flags = [part for key, value in settings.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    begun = ["train", "--model", "PP-YOLOE_seg-S", *flags, "--device", device, "--output", str(output), *STOPPED]
    said = command(*begun, fails="error: ").stderr
    if "does not compute in it" in said:
        pytest.skip(said.splitlines()[-1].removeprefix("error: "))
    run = Run.find(None, output=output)
    saved = read_checkpoint(run.checkpoint)["model"]
    command("train", "--resume", "--run", str(run.path), "--device", device)
    found = steps(run)
    left_out = sum("grad_norm" not in row for row in found)
    near = losses(run)[0] / losses(short)[0] - 1
    record_property("said", f"first loss {near:+.2%} of float32's; {left_out} of {len(found)} steps overflowed")
    assert result(run)["ended"] == "completed"
    assert all(map(math.isfinite, losses(run)))
    assert abs(near) < 0.05
    assert left_out < len(found) / 2
    for weights in (saved, read_weights(run.best_weights), read_weights(run.best_safetensors)):
        assert {str(value.dtype) for value in weights.values()} == {"float32"}


def test_several_devices(command: Command, work: Path, device: str, short: Run, record_property: Say) -> None:
    kind = device.partition(":")[0]
    there = [name for name in available_devices() if name.startswith(f"{kind}:")]
    if kind != "cpu" and len(there) < 2:
        pytest.skip(f"there is one {kind}")
    devices = "cpu:2" if kind == "cpu" else f"{kind}:" + ",".join(name.partition(":")[2] for name in there[:2])
    run = train(command, work / "several", devices, {**SHORT, "train.sync_bn": True})
    apart = losses(run)[0] / losses(short)[0] - 1
    record_property("said", f"{devices}: first loss {apart:+.1e} of one device's")
    assert result(run)["ended"] == "completed"
    assert abs(apart) < 1e-3


def test_evaluation_finds_the_ap_of_the_training(
    command: Command, work: Path, device: str, trained: Run, record_property: Say
) -> None:
    command("eval", "--run", str(trained.path), "--device", device, "--output", str(work))
    found = json.loads((work / "evaluate_result.json").read_text(encoding="utf-8"))["mask"]["AP"]
    best = result(trained)["best"]["mask"]["AP"]
    record_property("said", f"mask AP {found:.4f}, in training {best:.4f}")
    assert found == pytest.approx(best, abs=0.005)


def test_export(exported: Path, record_property: Say) -> None:
    tree = json.loads((exported / "certificate.json").read_text(encoding="utf-8"))
    record_property("said", f"on the CPU: {', '.join(tree['backends'])}")
    assert tree["backends"]
    assert (exported / "inference.json").is_file()


@pytest.mark.parametrize("name", ENGINES)
def test_certificate(name: str, exported: Path, device: str, measure: Measure, record_property: Say) -> None:
    if reason := ENGINES[name].lacks(read_exported(exported), device):
        pytest.skip(reason.replace(str(exported), "the export"))
    found = measure("engine", name=name, exported=str(exported))
    record_property("said", f"{found['said']}; {found['ms']:.1f} ms a picture")
    assert found["holds"]


def test_memory_does_not_grow(measure: Measure, record_property: Say) -> None:
    series = measure("growth", warm_up=20, steps=100)["bytes"]
    half = len(series) // 2
    more = max(series[half:]) - max(series[:half])
    record_property("said", f"{max(series) / 2**20:.0f} MB; {more / 2**20:+.1f} MB in the second half of 100 steps")
    assert min(series) > 0
    assert more < max(0.02 * max(series), 8 * 2**20)


@pytest.mark.parametrize("model", ["PP-YOLOE_seg-S", "Mask-RT-DETR-S"])
@pytest.mark.parametrize(("level", "dtype"), [pytest.param(None, "float32", id="float32"), *MODES])
def test_throughput(
    model: str, level: str | None, dtype: str, device: str, measure: Measure, report: Report, record_property: Say
) -> None:
    if device == "cpu" and level:
        pytest.skip("the CPU computes in float32 all the same")
    side, batch = (256, 1) if device == "cpu" else (640, 8)
    precision = dtype if level else "float16"
    found = measure("speed", model=model, side=side, batch=batch, amp=level, dtype=precision, seconds=8.0)
    report.speeds.append(
        {
            "model": model,
            "precision": f"{level} {dtype}" if level else dtype,
            "input": f"{side} x {side}",
            "batch": str(batch),
            "training, images/s": f"{found['images_per_s']:.1f}",
            "ms a step": f"{found['step_ms']:.0f}",
            "peak memory, GB": f"{found['peak'] / 2**30:.1f}",
            "inference, ms an image": f"{found['image_ms']:.1f}",
        }
    )
    record_property("said", f"{found['images_per_s']:.1f} images/s in training")
    assert found["images_per_s"] > 0
