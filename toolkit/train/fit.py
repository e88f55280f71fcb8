"""The training loop."""

from __future__ import annotations

import json
import shutil
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import paddle
from paddle import nn

from toolkit import __version__
from toolkit.data.coco import Dataset
from toolkit.data.loader import TrainBatches, eval_batches
from toolkit.errors import UserError
from toolkit.evaluate.ap import Evaluator, Metrics
from toolkit.evaluate.detect import detect
from toolkit.models import model_of
from toolkit.recipe import Recipe
from toolkit.run import Run
from toolkit.train import distributed, memory
from toolkit.train.checkpoint import Progress, State, identity
from toolkit.train.ema import MovingAverage
from toolkit.train.guard import Guard
from toolkit.train.log import Log, Silence
from toolkit.train.optim import build_optimizer, freeze, lr_factor, scaled_lr, train_mode, warmup_steps
from toolkit.train.origin import write_origin
from toolkit.train.pictures import truth_beside_found
from toolkit.train.precision import Precision
from toolkit.train.rehearsal import Forecast, rehearse
from toolkit.train.step import Learner, train_step
from toolkit.train.stop import Stop, Stopped
from toolkit.weights.load import load_weights, read_weights, write_atomically, write_safetensors

SAMPLE_PICTURES = 4
SEEDS_APART = 1_000_003
"""Between the random numbers of one process and the next."""


def fit(
    recipe: Recipe,
    dataset: Dataset,
    *,
    output: Path = Path("output"),
    weights: Path | None = None,
    resume: Run | None = None,
    time_limit: float | None = None,
) -> tuple[Run, dict[str, Any]]:
    """Train as `recipe` says.

    After each evaluation the weights with the best mask AP so far are kept. Checkpoints are written after each epoch,
    every few minutes in between, and on SIGINT and SIGTERM.

    Args:
        output: the folder in which the run gets a folder.
        weights: where training starts from; None: from fresh weights.
        resume: a run to go on with from its checkpoint, with the same numbers it would have seen. Where it was ended
            before its first checkpoint, it begins again.
        time_limit: minutes after which the run is saved and left, when the step or evaluation under way is done.

    Returns the run and what its `train_result.json` says. Raises UserError where training cannot go on, and where it is
    interrupted; nothing is written if it cannot even begin.
    """
    start = time.perf_counter()
    settings = recipe.train
    rank, ranks = distributed.rank(), distributed.count()
    paddle.seed(settings.seed)
    model = model_of(recipe)
    freeze(model, settings.freeze)
    report = load_weights(model, read_weights(weights), origin=str(weights)) if weights else None
    optim = build_optimizer(model, settings)
    precision = Precision(settings, model, optim)
    ema = MovingAverage(model, settings.ema, precision.masters) if settings.ema else None
    learner = Learner(model, optim, precision, ema, settings.clip_norm)
    if settings.sync_bn:
        distributed.synchronize_norms(model)
    statistics = [value for name, value in model.state_dict().items() if name.endswith(("._mean", "._variance"))]
    batches = TrainBatches(dataset.train, recipe, say=lambda line: log.say(line), rank=rank, ranks=ranks)
    steps = len(batches)
    progress = Progress()
    state = State(model, optim, ema, precision, progress, identity(dataset))
    forecast = None
    if resume and resume.checkpoint.is_file():
        state.restore(resume.checkpoint)
    else:
        forecast = rehearse(model, recipe, dataset, batches, ema)
        _require_room((resume.path if resume else output), forecast)

    run = resume or (Run.create(output, recipe) if rank == 0 else None)
    if run and rank == 0 and not run.checkpoint.is_file():
        write_origin(run, weights=weights, data=state.data)
    run = distributed.gather(run)[0]
    log = Silence(run) if rank else Log(run, step=progress.step, epoch=progress.epoch)
    stop, saved = Stop(time_limit), time.monotonic()
    guard = Guard(model, recipe, run, log, files={picture.id: picture.file_name for picture in dataset.train.pictures})
    ended = "failed"

    def save(run: Run) -> None:
        if rank == 0:
            state.save(run.checkpoint)

    try:
        for line in _announcement(recipe, dataset, model, batches):
            log.say(line)
        if report:
            log.say(report.describe())
        if precision.ignored:
            log.say(f"train.amp {settings.amp}: the CPU computes in float32 all the same")
        if forecast:
            log.say(forecast.describe())
        if resume:
            log.say(f"resumed at step {progress.step}, epoch {min(progress.epoch + 1, settings.epochs)}")
        with stop.listening():
            for epoch in range(progress.epoch, settings.epochs):
                if settings.early_stop and progress.stale >= settings.early_stop:
                    log.say(f"no better mask AP in {progress.stale} evaluations in a row: stopped early")
                    ended = "stopped early"
                    break
                train_mode(model, settings.freeze)
                with log.epoch(epoch + 1, epochs=settings.epochs, steps=steps, done=progress.step) as bar:
                    for parts in batches.epoch(epoch, skip=progress.step - epoch * steps):
                        # A step's random numbers depend on its number alone, so a resumed run draws the same.
                        paddle.seed(settings.seed + progress.step + SEEDS_APART * rank)
                        lr = scaled_lr(settings) * lr_factor(
                            progress.step, schedule=settings.schedule, epochs=settings.epochs, steps_per_epoch=steps
                        )
                        guard.begin()
                        allows = partial(guard.allows, batches=parts, step=progress.step)
                        values = train_step(learner, parts, lr=lr, allows=allows)
                        if not settings.sync_bn:
                            distributed.share(statistics)
                        progress.step += 1
                        images = ranks * sum(len(part["image_ids"]) for part in parts)
                        bar.advance(progress.step, {**values, "lr": lr}, images=images)
                        stop.check(distributed.gather)
                        if time.monotonic() - saved >= 60 * settings.save_every_minutes:
                            save(run)
                            saved = time.monotonic()
                line = f"epoch {epoch + 1}/{settings.epochs}  loss {bar.loss:.4f}  {bar.images_per_s:.1f} images/s"
                if (epoch + 1) % settings.eval_every == 0 or epoch + 1 == settings.epochs:
                    metrics = _evaluate(learner, recipe, dataset, log, progress, stop)
                    line += f"  mask AP {metrics.mask_ap:.3f}  box AP {metrics.box_ap:.3f}"
                    progress.stale += 1
                    if progress.best is None or metrics.mask_ap > progress.best["mask"]["AP"]:
                        progress.best, progress.best_epoch, progress.stale = metrics.as_dict(), epoch + 1, 0
                        if rank == 0:
                            write_atomically(run.best_weights, learner.evaluated_weights())
                        line += "  (best so far)"
                progress.epoch = epoch + 1
                save(run)
                saved = time.monotonic()
                log.say(line)
            else:
                ended = "completed"
        if rank == 0:
            metadata = {"model": recipe.model.name, "classes": json.dumps(recipe.classes, ensure_ascii=False)}
            write_safetensors(run.best_safetensors, read_weights(run.best_weights), metadata=metadata)
        best = progress.best["mask"]["AP"] if progress.best else None
        log.say(f"best mask AP {best or 0:.3f}, after epoch {progress.best_epoch}: {run.best_weights}")
    except Stopped as stopped:
        save(run)
        distributed.gather(None)  # none leaves, and has the others ended, before that is done
        ended = str(stopped)
        raise UserError(f"{ended}; saved at step {progress.step}, go on with: {_go_on(run)}") from None
    except KeyboardInterrupt:
        ended = "interrupted"
        raise UserError(f"interrupted; go on from the last checkpoint with: {_go_on(run)}") from None
    except UserError as error:
        ended = f"failed: {error}"
        raise
    except OSError as error:
        ended = f"failed: {error.strerror or error}"
        raise UserError(f"{run.path}: {error.strerror or error}; mend that, then go on with: {_go_on(run)}") from None
    finally:
        batches.close()
        result = {
            **_result(recipe, run, progress, ended=ended, seconds=time.perf_counter() - start),
            "forecast": forecast.as_dict() if forecast else None,
            "peak_memory": memory.peak(),
        }
        if rank == 0:
            _write_result(run.result, result)
        log.close()
    return run, result


def _announcement(recipe: Recipe, dataset: Dataset, model: nn.Layer, batches: TrainBatches) -> list[str]:
    settings, steps = recipe.train, len(batches)
    trained = sum(p.size for p in model.parameters() if not p.stop_gradient)
    total = sum(p.size for p in model.parameters())
    lr = f"learning rate {scaled_lr(settings):.3g}"
    if settings.batch_size != settings.lr_batch_size:
        lr += f" ({settings.lr:.3g} at batch {settings.lr_batch_size}, scaled to batch {settings.batch_size})"
    tiles = []
    if recipe.tiling:
        height, width = recipe.tiling.size
        tiles.append(f"in tiles of {width} x {height} pixels, {batches.pictures} an epoch")
    warmup = warmup_steps(settings.schedule, epochs=settings.epochs, steps_per_epoch=steps)
    return [
        *dataset.train.notes,
        *dataset.val.notes,
        f"{len(dataset.train.pictures)} pictures to train on, {len(dataset.val.pictures)} to evaluate on, "
        f"{len(dataset.train.classes)} classes",
        *tiles,
        f"{recipe.model.name}: {total / 1e6:.1f} M parameters, {trained / 1e6:.1f} M of them trained",
        f"{settings.epochs} epochs of {steps} steps, {lr}, warm-up {warmup} steps",
    ]


def _evaluate(learner: Learner, recipe: Recipe, dataset: Dataset, log: Log, progress: Progress, stop: Stop) -> Metrics:
    settings = recipe.evaluate
    samples = []
    shown = {picture.id: picture for picture in islice(dataset.val.pictures, SAMPLE_PICTURES)}
    part = replace(dataset.val, pictures=dataset.val.pictures[distributed.rank() :: distributed.count()])
    evaluator = Evaluator(dataset.val, max_detections=settings.max_detections)
    batches = eval_batches(part, recipe)
    with learner.as_evaluated():
        for picture_id, found in detect(learner.model, batches, limit=settings.max_detections, tiling=recipe.tiling):
            if distributed.count() == 1:  # or else some would stop and others wait for them
                stop.check(in_time=True)
            evaluator.add(picture_id, found)
            if picture_id in shown:
                picture = shown[picture_id]
                sure = found.above(recipe.predict.threshold)
                samples.append((picture.file_name, truth_beside_found(picture, sure, dataset.val.classes)))
    everything = distributed.gather(evaluator.collected())
    for rank, parts in enumerate(everything):
        if rank != distributed.rank():
            evaluator.take_over(parts)
    # Told by the first alone, so that all go by the same figures.
    metrics: Metrics = distributed.gather(evaluator.summarize() if distributed.rank() == 0 else None)[0]
    log.evaluation(progress.step, progress.epoch + 1, metrics)
    log.pictures(progress.step, samples)
    return metrics


def _require_room(folder: Path, forecast: Forecast) -> None:
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < forecast.disk:
        raise UserError(
            f"{folder}: {free / 1e9:.1f} GB free, and the run needs {forecast.disk / 1e9:.1f} for its checkpoints; "
            "make room, or choose another --output"
        )


def _go_on(run: Run) -> str:
    return f"seg-tune train --resume --run {run.path}"


def _write_result(path: Path, result: dict[str, Any]) -> None:
    beside = path.with_name(f".{path.name}.part")
    # A full disk is what the run may have ended by.
    with suppress(OSError):
        beside.write_text(json.dumps(result, indent=2, ensure_ascii=False), encoding="utf-8")
        beside.replace(path)


def _result(recipe: Recipe, run: Run, progress: Progress, *, ended: str, seconds: float) -> dict[str, Any]:
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
