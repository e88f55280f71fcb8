"""The training loop."""

from __future__ import annotations

import json
import math
import time
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import paddle
from paddle import Tensor, nn

from toolkit import __version__
from toolkit.data.coco import Dataset
from toolkit.data.draw import draw_detections
from toolkit.data.images import read_rgb
from toolkit.data.loader import TrainBatches, eval_batches
from toolkit.errors import UserError
from toolkit.evaluate.ap import Metrics, evaluate
from toolkit.evaluate.detect import detect
from toolkit.models import model_of
from toolkit.recipe import Recipe
from toolkit.run import Run
from toolkit.train import checkpoint
from toolkit.train.ema import MovingAverage
from toolkit.train.log import Log
from toolkit.train.optim import build_optimizer, freeze, lr_factor, scaled_lr, warmup_steps
from toolkit.weights.load import load_weights, read_weights, write_atomically

SAMPLE_PICTURES = 4


def fit(
    recipe: Recipe,
    dataset: Dataset,
    *,
    output: Path = Path("output"),
    weights: Path | None = None,
    resume: Run | None = None,
) -> tuple[Run, dict[str, Any]]:
    """Train as `recipe` says.

    After each evaluation the weights with the best mask AP so far are kept, and after each epoch a checkpoint.

    Args:
        output: the folder in which the run gets a folder.
        weights: where training starts from; None: from fresh weights.
        resume: a run to go on with after its last completed epoch, with the same numbers it would have seen.

    Returns the run and what its `train_result.json` says. Raises UserError where training cannot go on, and where it is
    interrupted; nothing is written if it cannot even begin.
    """
    start = time.perf_counter()
    settings = recipe.train
    paddle.seed(settings.seed)
    model = model_of(recipe)
    freeze(model, settings.freeze)
    report = load_weights(model, read_weights(weights), origin=str(weights)) if weights else None
    optim = build_optimizer(model, settings)
    ema = MovingAverage(model, settings.ema) if settings.ema else None
    batches = TrainBatches(dataset.train, recipe, say=lambda line: log.say(line))
    steps = len(batches)
    progress, identity = checkpoint.Progress(), _identity(dataset)
    if resume:
        progress = checkpoint.restore(resume.checkpoint, model=model, optim=optim, ema=ema, data=identity)

    run = resume or Run.create(output, recipe)
    log = Log(run)
    ended = "failed"
    try:
        for line in _announcement(recipe, dataset, model, steps):
            log.say(line)
        if report:
            log.say(report.describe())
        if resume:
            log.say(f"resumed after epoch {progress.epoch} of {settings.epochs}")
        for epoch in range(progress.epoch, settings.epochs):
            model.train()
            with log.epoch(epoch + 1, epochs=settings.epochs, steps=steps, done=progress.step) as bar:
                for batch in batches.epoch(epoch):
                    # A step's random numbers depend on its number alone, so a resumed run draws the same.
                    paddle.seed(settings.seed + progress.step)
                    lr = scaled_lr(settings) * lr_factor(
                        progress.step, schedule=settings.schedule, epochs=settings.epochs, steps_per_epoch=steps
                    )
                    optim.set_lr(lr)
                    losses = model(to_tensors(batch))
                    losses["loss"].backward()
                    values = {name: float(loss) for name, loss in losses.items()}
                    if not math.isfinite(values["loss"]):
                        raise UserError(_not_finite(values, epoch + 1, progress.step, batch, run))
                    optim.step()
                    optim.clear_grad()
                    if ema:
                        ema.update()
                    progress.step += 1
                    bar.advance(progress.step, {**values, "lr": lr}, images=len(batch["image_ids"]))
            progress.epoch = epoch + 1
            line = f"epoch {progress.epoch}/{settings.epochs}  loss {bar.loss:.4f}  {bar.images_per_s:.1f} images/s"
            if progress.epoch % settings.eval_every == 0 or progress.epoch == settings.epochs:
                with ema.applied() if ema else nullcontext():
                    metrics = _evaluate(model, recipe, dataset, log, progress)
                    line += f"  mask AP {metrics.mask_ap:.3f}  box AP {metrics.box_ap:.3f}"
                    if progress.best is None or metrics.mask_ap > progress.best["mask"]["AP"]:
                        progress.best, progress.best_epoch = metrics.as_dict(), progress.epoch
                        write_atomically(run.best_weights, _state(model))
                        line += "  (best so far)"
            checkpoint.save(run.checkpoint, model=model, optim=optim, ema=ema, progress=progress, data=identity)
            log.say(line)
        best = progress.best["mask"]["AP"] if progress.best else None
        log.say(f"best mask AP {best or 0:.3f}, after epoch {progress.best_epoch}: {run.best_weights}")
        ended = "completed"
    except KeyboardInterrupt:
        ended = "interrupted"
        raise UserError(f"interrupted; go on with: seg-tune train --resume --run {run.path}") from None
    except UserError as error:
        ended = f"failed: {error}"
        raise
    finally:
        batches.close()
        result = _result(recipe, run, progress, ended=ended, seconds=time.perf_counter() - start)
        run.result.write_text(json.dumps(result, indent=2, ensure_ascii=False), encoding="utf-8")
        log.close()
    return run, result


def to_tensors(batch: dict[str, Any]) -> dict[str, Any]:
    """The arrays of a batch, and the arrays in its lists, as tensors on the current device."""
    return {
        key: [paddle.to_tensor(item) for item in value] if isinstance(value, list) else paddle.to_tensor(value)
        for key, value in batch.items()
        if key != "image_ids"
    }


def _announcement(recipe: Recipe, dataset: Dataset, model: nn.Layer, steps: int) -> list[str]:
    settings = recipe.train
    trained = sum(p.size for p in model.parameters() if not p.stop_gradient)
    total = sum(p.size for p in model.parameters())
    lr = f"learning rate {scaled_lr(settings):.3g}"
    if settings.batch_size != settings.lr_batch_size:
        lr += f" ({settings.lr:.3g} at batch {settings.lr_batch_size}, scaled to batch {settings.batch_size})"
    warmup = warmup_steps(settings.schedule, epochs=settings.epochs, steps_per_epoch=steps)
    return [
        *dataset.train.notes,
        *dataset.val.notes,
        f"{len(dataset.train.pictures)} pictures to train on, {len(dataset.val.pictures)} to evaluate on, "
        f"{len(dataset.train.classes)} classes",
        f"{recipe.model.name}: {total / 1e6:.1f} M parameters, {trained / 1e6:.1f} M of them trained",
        f"{settings.epochs} epochs of {steps} steps, {lr}, warm-up {warmup} steps",
    ]


def _evaluate(model: nn.Layer, recipe: Recipe, dataset: Dataset, log: Log, progress: checkpoint.Progress) -> Metrics:
    settings = recipe.evaluate
    samples = []
    pictures = {picture.id: picture for picture in islice(dataset.val.pictures, SAMPLE_PICTURES)}

    def watched() -> Any:
        for picture_id, found in detect(model, eval_batches(dataset.val, recipe), limit=settings.max_detections):
            if picture_id in pictures:
                picture = pictures[picture_id]
                shown = found.above(recipe.predict.threshold)
                samples.append((picture.file_name, draw_detections(read_rgb(picture.path), shown, dataset.val.classes)))
            yield picture_id, found

    metrics = evaluate(watched(), dataset.val, max_detections=settings.max_detections)
    log.evaluation(progress.step, progress.epoch, metrics)
    log.pictures(progress.step, samples)
    return metrics


def _state(model: nn.Layer) -> dict[str, Any]:
    values: dict[str, Tensor] = model.state_dict()
    return {name: value.numpy() for name, value in values.items()}


def _identity(dataset: Dataset) -> dict[str, Any]:
    return {
        "classes": list(dataset.train.classes),
        "pictures": len(dataset.train.pictures),
        "annotations": sum(len(picture.annotations) for picture in dataset.train.pictures),
    }


def _not_finite(values: dict[str, float], epoch: int, step: int, batch: dict[str, Any], run: Run) -> str:
    parts = ", ".join(name for name, value in values.items() if name != "loss" and not math.isfinite(value))
    ids = ", ".join(str(i) for i in batch["image_ids"])
    return (
        f"{run.path}: {parts or 'loss'} is not finite in epoch {epoch}, step {step}, pictures with id {ids}; "
        "lower --lr (the last good checkpoint and the best weights are kept)"
    )


def _result(recipe: Recipe, run: Run, progress: checkpoint.Progress, *, ended: str, seconds: float) -> dict[str, Any]:
    return {
        "ended": ended,
        "model": recipe.model.name,
        "classes": recipe.classes,
        "epochs": progress.epoch,
        "steps": progress.step,
        "best_epoch": progress.best_epoch,
        "best": progress.best,
        "best_weights": str(run.best_weights.relative_to(run.path)),
        "seconds": round(seconds, 1),
        "version": __version__,
    }
