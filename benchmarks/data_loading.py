"""Whether batches are ready when the training wants them.

    python benchmarks/data_loading.py MODEL DATA [--batches 12] [--set data.input_size=[320,320] ...]

Trains on the batches of a dataset as they come from the worker processes, and on one batch over and over; the ratio of
the two says what reading, augmenting and resizing pictures costs a run. On a CPU the workers take their share of the
cores that train, so the least it can be is 1 + (time to make a batch on one core) / (cores x time of a step).
"""

from __future__ import annotations

import argparse
import time
from itertools import chain, count, islice
from pathlib import Path

import paddle

from toolkit import cores
from toolkit.data.coco import find_dataset
from toolkit.data.loader import TrainBatches
from toolkit.device import set_device
from toolkit.models import build_model
from toolkit.recipe import load_recipe, parse_settings
from toolkit.train.batch import to_tensors
from toolkit.train.optim import build_optimizer, train_mode


def main() -> None:
    parser = argparse.ArgumentParser(description="Time data loading beside training; see the head of this file.")
    parser.add_argument("model")
    parser.add_argument("data", type=Path)
    parser.add_argument("--batches", type=int, default=12)
    parser.add_argument("--set", action="append", default=[])
    arguments = parser.parse_args()
    set_device("cpu")
    recipe = load_recipe(arguments.model, {"data.path": str(arguments.data), **parse_settings(arguments.set)})
    split = find_dataset(arguments.data).train
    paddle.seed(0)
    model = build_model(recipe.model.name, len(split.classes), recipe.data.input_size, **recipe.model.options)
    train_mode(model, recipe.train.freeze)
    optim = build_optimizer(model, recipe.train)
    optim.set_lr(0.0)
    batches = TrainBatches(split, recipe)

    def stream():  # type: ignore[no-untyped-def]
        return (part for parts in chain.from_iterable(batches.epoch(n) for n in count()) for part in parts)

    def seconds(source) -> float:  # type: ignore[no-untyped-def]
        start = time.perf_counter()
        for batch in source:
            losses = model(to_tensors(batch))
            losses["loss"].backward()
            optim.step()
            optim.clear_grad()
            float(losses["loss"])
        return (time.perf_counter() - start) / arguments.batches

    feed = stream()
    drawn = list(islice(feed, arguments.batches))
    seconds(drawn[:2])
    # In turns, so that whatever else the machine does meets both.
    half = arguments.batches // 2
    cached = loaded = 0.0
    for part in (drawn[:half], drawn[half:]):
        cached += seconds(part)
        loaded += seconds(islice(feed, len(part)))
    batches.close()

    alone = TrainBatches(split, recipe.model_copy(update={"data": recipe.data.model_copy(update={"workers": 0})}))
    start = time.perf_counter()
    made = sum(1 for _ in islice(alone.epoch(0), arguments.batches))
    make = (time.perf_counter() - start) / made
    pictures = recipe.train.batch_size
    print(f"{recipe.model.name}, batches of {pictures}, {recipe.data.workers} workers, {cores()} cores")
    print(f"a batch is made in {make:.3f} s on one core ({1000 * make / pictures:.1f} ms a picture)")
    print(f"a step takes {cached:.3f} s on batches at hand, {loaded:.3f} s as they are loaded: {loaded / cached:.2f}")
    print(f"the least that can be had from these cores: {1 + make / (cores() * cached):.2f}")


if __name__ == "__main__":
    main()
