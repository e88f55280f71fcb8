"""What the acceptance test measures in processes of its own: `python -m tests.accelerator.measure WHAT JSON`.

The arguments of WHAT are a JSON object; the last line on standard output is its result, as JSON. Each process has the
device to itself, and where one crashes the others and the report are still there.
"""

from __future__ import annotations

import json
import platform
import shutil
import statistics
import subprocess
import sys
import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np

import toolkit.device  # noqa: F401  # so that Paddle is imported there first

import paddle  # isort: skip

from tests.export.conftest import recipe_of, tiny, tiny_options
from toolkit import cores
from toolkit.bundled import sample_dataset
from toolkit.data.coco import find_dataset
from toolkit.data.images import read_rgb
from toolkit.data.loader import TrainBatches
from toolkit.data.preprocess import Preprocess, steps_of
from toolkit.device import set_device
from toolkit.evaluate.detect import detect_prepared
from toolkit.models import build_model, model_of
from toolkit.pipeline.backends.engines import ENGINES, load_engine
from toolkit.pipeline.certificate import check, compare
from toolkit.pipeline.exported import read_exported
from toolkit.pipeline.sample import read_sample
from toolkit.recipe import Recipe, load_recipe
from toolkit.train import memory
from toolkit.train.batch import to_tensors
from toolkit.train.optim import build_optimizer, train_mode
from toolkit.train.origin import code_version
from toolkit.train.precision import Precision
from toolkit.train.step import Learner, train_step

PACKAGES = (
    "paddlepaddle",
    "paddlepaddle-gpu",
    "paddlepaddle-xpu",
    "paddle-custom-npu",
    "paddle-custom-mlu",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "numpy",
)


def about(device: str) -> dict[str, str]:
    """Device and versions, as a table of a report has them."""
    set_device(device)
    found = {"device": device}
    if device == "cpu":
        found["processor"] = f"{_processor()}, {cores()} cores"
    else:
        with suppress(Exception):  # Not every build of Paddle knows.
            found["name"] = str(paddle.device.get_device_name())
    if nvidia := shutil.which("nvidia-smi"):
        query = [nvidia, "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
        found["nvidia-smi"] = "; ".join(subprocess.run(query, capture_output=True, text=True).stdout.splitlines())
    found |= {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "Python": platform.python_version(),
        "seg-tune": code_version(),
        "Paddle": f"{paddle.version.full_version} ({paddle.version.commit[:12]})",
        "CUDA, cuDNN": f"{paddle.version.cuda()}, {paddle.version.cudnn()}",
    }
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def outputs(device: str, model: str) -> dict[str, Any]:
    """Detections and losses of the tiny variant of a model on `device` and on the CPU, with the same weights."""
    set_device("cpu")
    weights = {name: value.numpy() for name, value in tiny(model).state_dict().items()}
    recipe = recipe_of(model)
    dataset = find_dataset(sample_dataset())
    prepare = Preprocess(steps_of(recipe.data), origin="recipe")
    pictures = [prepare(read_rgb(picture.path)) for picture in dataset.val.pictures[:3]]
    batches = TrainBatches(dataset.train, recipe.model_copy(update={"data": recipe.data.model_copy(update=_PLAIN)}))
    batch = batches.heaviest()
    # Points that R-CNNs draw at random would be others on another device.
    options = {**tiny_options(model), **({"sampling": "first"} if "RCNN" in model else {})}
    sides = []
    for where in ("cpu", device):
        set_device(where)
        network = build_model(model, len(recipe.classes), recipe.data.input_size, **options)
        network.set_state_dict({name: paddle.to_tensor(value) for name, value in weights.items()})
        network.eval()
        found = detect_prepared(network, pictures)
        train_mode(network, [])
        paddle.seed(0)
        losses = {name: float(value) for name, value in network(to_tensors(batch)).items()}
        sides.append((found, losses))
    agreement = compare(sides[0][0], sides[1][0])
    return {
        "holds": agreement.holds,
        "rows": agreement.rows,
        "said": agreement.describe(),
        "losses": [side[1] for side in sides],
    }


_PLAIN = {"train_sizes": [], "train_transforms": [], "workers": 0}


def engine(device: str, name: str, exported: str) -> dict[str, Any]:
    """An engine on `device` against what the trained model found on the CPU."""
    there = read_exported(Path(exported))
    sample = read_sample(Path(exported))
    assert sample is not None
    backend = load_engine(there, name, device=device)
    agreement = check(there, sample, backend, precision=ENGINES[name].precision)
    return {"holds": agreement.holds, "said": agreement.describe(), "ms": agreement.ms_per_picture}


def growth(device: str, warm_up: int, steps: int) -> dict[str, Any]:
    """Memory after each tenth of `steps` training steps over a few batches in turn."""
    set_device(device)
    size = [96, 96]
    recipe = _recipe("PP-YOLOE_seg-S", {"data.input_size": size, "model.options": tiny_options("PP-YOLOE_seg-S")}, 8)
    learner, batches = _learner(recipe)
    endless = cycle(batches)
    for batch in islice(endless, warm_up):
        train_step(learner, [batch], lr=1e-6)
    series = []
    for number, batch in enumerate(islice(endless, steps), start=1):
        train_step(learner, [batch], lr=1e-6)
        if number % (steps // 10) == 0:
            series.append(_memory_in_use())
    return {"bytes": series}


def speed(
    device: str, model: str, side: int, batch: int, amp: str | None, dtype: str, seconds: float
) -> dict[str, float]:
    """Training and inference of a whole model at one size, each for about `seconds` after its first steps."""
    set_device(device)
    memory.forget()
    mixed = {"train.amp": amp, "train.amp_dtype": dtype}
    recipe = _recipe(model, {"data.input_size": [side, side], **mixed}, batch)
    learner, batches = _learner(recipe)
    training = _times(lambda: train_step(learner, [batches[0]], lr=1e-6), seconds)
    peak = memory.peak() if device == "cpu" else paddle.device.max_memory_reserved()
    learner.model.eval()
    picture = paddle.to_tensor(batches[0]["image"][:1])

    def infer() -> None:
        with paddle.no_grad(), learner.precision.cast():
            for output in learner.model.network(picture):
                output.astype("float32").numpy()

    inference = _times(infer, seconds)
    return {"images_per_s": batch / training, "step_ms": 1000 * training, "peak": peak, "image_ms": 1000 * inference}


def _times(call: Any, seconds: float) -> float:
    """Median seconds of a call."""
    for _ in range(2):
        call()
    took: list[float] = []
    end = time.perf_counter() + seconds
    while len(took) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        call()  # waits for the device: it reads a loss, or the outputs
        took.append(time.perf_counter() - start)
    return statistics.median(took)


def _recipe(model: str, changes: dict[str, Any], batch: int) -> Recipe:
    changes = {
        **{f"data.{key}": value for key, value in _PLAIN.items()},
        "train.batch_size": batch,
        "train.pretrained": "none",
        **changes,
    }
    recipe = load_recipe(model, changes)
    return recipe.model_copy(update={"classes": list(find_dataset(sample_dataset()).train.classes)})


def _learner(recipe: Recipe) -> tuple[Learner, list[dict[str, Any]]]:
    paddle.seed(0)
    model = model_of(recipe)
    optim = build_optimizer(model, recipe.train)
    learner = Learner(model, optim, Precision(recipe.train, model, optim), clip_norm=recipe.train.clip_norm)
    train_mode(model, [])
    batches = TrainBatches(find_dataset(sample_dataset()).train, recipe)
    return learner, [batches.typical(number)[0] for number in range(4)]


def _memory_in_use() -> int:
    if paddle.device.get_device() != "cpu":
        return int(paddle.device.memory_allocated())
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(": ")[2]
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    np.seterr(all="ignore")
    known = {f.__name__: f for f in (about, outputs, engine, growth, speed)}
    print(json.dumps(known[sys.argv[1]](**json.loads(sys.argv[2]))))
