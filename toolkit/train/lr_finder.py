"""A learning rate to begin with, by the range test of Smith 2017, "Cyclical Learning Rates" (arXiv:1506.01186)."""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from toolkit.data.coco import dataset_of
from toolkit.data.loader import TrainBatches
from toolkit.device import set_device
from toolkit.errors import UserError
from toolkit.models import model_of
from toolkit.recipe import load_recipe, parse_settings
from toolkit.train.optim import build_optimizer, freeze, train_mode
from toolkit.train.precision import Precision
from toolkit.train.step import Learner, train_step
from toolkit.weights.fetch import resolve_pretrained
from toolkit.weights.load import load_weights, read_weights

SMOOTHING = 0.9
DIVERGED = 4.0
"""Times the least loss so far at which the test ends."""


def find_lr(
    model: str,
    *,
    overrides: Mapping[str, Any] | None = None,
    settings: Sequence[str] = (),
    device: str = "auto",
    steps: int = 100,
    low: float = 1e-7,
    high: float = 1.0,
    table: Path | None = None,
) -> float:
    """Train `steps` steps with a rate that rises from `low` to `high`; return the one at which the loss falls fastest.

    It is at the recipe's own batch size, as `train.lr` is. Nothing is kept of the training.

    Args:
        table: a CSV file that gets rate, loss and smoothed loss of each step.

    Raises UserError for bad settings and data, and if the loss falls nowhere.
    """
    recipe = load_recipe(model, {**(overrides or {}), **parse_settings(settings)})
    dataset = dataset_of(recipe.data)
    recipe = recipe.model_copy(update={"classes": list(dataset.train.classes)})
    set_device(device)
    train = recipe.train
    weights = resolve_pretrained(train.pretrained, recipe.model.name)
    paddle.seed(train.seed)
    network = model_of(recipe)
    freeze(network, train.freeze)
    if weights:
        load_weights(network, read_weights(weights), origin=str(weights))
    optim = build_optimizer(network, train)
    learner = Learner(network, optim, Precision(train, network, optim), clip_norm=train.clip_norm)
    batches = TrainBatches(dataset.train, recipe)
    rows: list[tuple[float, float, float]] = []
    train_mode(network, train.freeze)
    smooth, least = 0.0, math.inf
    endless = itertools.chain.from_iterable(batches.epoch(number) for number in itertools.count())
    try:
        for step, parts in enumerate(itertools.islice(endless, steps)):
            paddle.seed(train.seed + step)
            lr = low * (high / low) ** (step / max(1, steps - 1))
            value = train_step(learner, parts, lr=lr)["loss"]
            smooth = SMOOTHING * smooth + (1 - SMOOTHING) * value
            corrected = smooth / (1 - SMOOTHING ** (step + 1))
            if not math.isfinite(corrected) or corrected > DIVERGED * least:
                break
            least = min(least, corrected)
            rows.append((lr * train.lr_batch_size / train.batch_size, value, corrected))
    finally:
        batches.close()
    if table:
        with table.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("lr", "loss", "smoothed"), *rows])
    return steepest(rows)


def steepest(rows: Sequence[tuple[float, float, float]]) -> float:
    """The rate at which the smoothed loss falls fastest over the logarithm of the rate; rows: rate, loss, smoothed.

    Raises UserError if it falls nowhere.
    """
    if len(rows) < 10:
        raise UserError("the loss grew from the start; try again with lower rates (--low)")
    rates = np.log([row[0] for row in rows])
    slope = np.gradient([row[2] for row in rows], rates)
    # The first losses are means of too few to have a slope.
    best = 5 + int(np.argmin(slope[5:]))
    if slope[best] >= 0:
        raise UserError("the loss falls at none of these rates; try more --steps or other rates (--low, --high)")
    return float(rows[best][0])
