"""A few steps before the first epoch, which tell whether a run can be seen through, and when it will end."""

from __future__ import annotations

import statistics
import time
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

import paddle
from paddle import nn

from toolkit import cores
from toolkit.data.coco import Dataset
from toolkit.data.loader import TrainBatches, eval_batches
from toolkit.errors import UserError
from toolkit.evaluate.detect import detect
from toolkit.nn.low_precision import assign, to_numpy
from toolkit.recipe import Recipe
from toolkit.train import memory
from toolkit.train.ema import MovingAverage
from toolkit.train.optim import build_optimizer, train_mode
from toolkit.train.precision import Precision
from toolkit.train.step import Learner, train_step

TYPICAL = 3
"""Steps on typical pictures, of which the middle time counts; one before them, the first of its shape, takes longer."""


@dataclass(frozen=True)
class Forecast:
    """What a run will need."""

    memory: int
    """Bytes at the highest, in the training process or on the accelerator."""
    disk: int
    """Bytes of its files, and of those that lie beside them while they are replaced."""
    epoch_seconds: float
    """Without evaluation."""
    evaluation_seconds: float
    seconds: float
    """Of the whole training."""

    def describe(self) -> str:
        """One line for people."""
        room = memory.available()
        of = f" of {room / 2**30:.1f}" if room else ""
        return (
            f"foretold: {self.memory / 2**30:.1f}{of} GB of memory at the highest, {_clock(self.epoch_seconds)} an "
            f"epoch, {_clock(self.evaluation_seconds)} an evaluation, {_clock(self.seconds)} in all"
        )

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def rehearse(
    model: nn.Layer,
    recipe: Recipe,
    dataset: Dataset,
    batches: TrainBatches,
    ema: MovingAverage | None,
) -> Forecast:
    """Train a step on the heaviest pictures and some on typical ones, evaluate a batch, and leave `model` as it was.

    Raises UserError if that does not fit into memory, or for a picture that cannot be read.
    """
    settings = recipe.train
    memory.forget()
    before = {name: to_numpy(value) for name, value in model.state_dict().items()}
    average = ema.state() if ema else None
    copies = sum(value.nbytes for value in before.values()) * (2 if ema else 1)
    # Paddle counts the names of an optimizer's state; those of the one that trains must not depend on this one.
    with paddle.utils.unique_name.guard():
        optim = build_optimizer(model, settings)
        precision = Precision(settings, model, optim)
    precision.scaler = None  # A step left out for an overflow would not show what the optimizer needs.
    learner = Learner(model, optim, precision, ema, settings.clip_norm)

    def step(batch: dict[str, Any]) -> float:
        start = time.perf_counter()
        with paddle.utils.unique_name.guard():
            train_step(learner, [batch] * settings.accumulate, lr=0.0, allows=lambda _: True)
        return time.perf_counter() - start

    try:
        paddle.seed(settings.seed)
        train_mode(model, settings.freeze)
        step(batches.heaviest())
        took, made = [], []
        for number in range(1 + TYPICAL):
            start = time.perf_counter()
            batch, weight = batches.typical(number)
            made.append(time.perf_counter() - start)
            took.append(weight * step(batch))
        groups = eval_batches(dataset.val, recipe)
        first = [next(iter(groups))]
        for _ in range(2):  # the first of its shape takes longer
            start = time.perf_counter()
            with precision.cast():
                for _ in detect(model, first, limit=recipe.evaluate.max_detections, tiling=recipe.tiling):
                    pass
            evaluation = (time.perf_counter() - start) * len(groups)
        state = sum(value.numpy().nbytes for value in optim.state_dict().values() if hasattr(value, "numpy"))
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error).lower():
            raise
        raise UserError(
            f"a step on the pictures with the most objects does not fit into the memory of the "
            f"{paddle.device.get_device()}; lower --batch-size, or split the batch with --accumulate"
        ) from None
    finally:
        own = model.state_dict()
        for name, value in before.items():
            assign(own[name], value)
        if ema and average:
            ema.load(average)
    on_cpu = paddle.device.get_device() == "cpu"
    kept = sum(value.nbytes for value in before.values())
    # Saving makes arrays of all it saves, while Paddle keeps for itself what the step has needed.
    checkpoint = kept * (2 if ema else 1) + state
    most = memory.peak() + (checkpoint - copies if on_cpu else 0)
    compute, load = statistics.median(took[1:]), settings.accumulate * statistics.median(made[1:])
    if not recipe.data.workers:
        seconds = compute + load
    elif on_cpu:
        seconds = compute + load / cores()  # Both want the same cores.
    else:
        seconds = max(compute, load / min(recipe.data.workers, cores()))
    epoch = seconds * len(batches)
    evaluations = -(-settings.epochs // settings.eval_every)
    return Forecast(
        memory=most,
        disk=2 * (checkpoint + kept),
        epoch_seconds=epoch,
        evaluation_seconds=evaluation,
        seconds=settings.epochs * epoch + evaluations * evaluation,
    )


def _clock(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else str(timedelta(seconds=round(seconds)))
