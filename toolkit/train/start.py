"""From what a person asks for to a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import paddle

from toolkit.data.coco import dataset_of
from toolkit.device import set_device
from toolkit.devices import split_devices
from toolkit.errors import UserError
from toolkit.places import require_writable
from toolkit.recipe import load_recipe, parse_settings
from toolkit.run import Run
from toolkit.runs import ENDED
from toolkit.train import distributed
from toolkit.train.batch_size import fitting_batch_size, with_batch_size
from toolkit.train.fit import fit
from toolkit.train.launch import launch
from toolkit.weights.fetch import resolve_pretrained


def start_training(
    model: str | None = None,
    *,
    recipe: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    settings: Sequence[str] = (),
    device: str = "auto",
    output: Path = Path("output"),
    time_limit: float | None = None,
) -> tuple[Run, dict[str, Any]]:
    """Begin a run and see it through; return it with what its `train_result.json` says.

    Args:
        model: its recipe is the start; `recipe`: a file in its place.
        overrides: dotted keys of the recipe and their values (`train.batch_size` may be `auto`); `settings`: the same
            as `key=value`, and stronger.
        device: see `toolkit.device`; of several, each gets a process.
        output: the folder in which the run gets a folder.
        time_limit: minutes after which the run is saved and left.

    Raises UserError for bad settings and for data that cannot be trained on, before anything is written.
    """
    if len(devices := split_devices(device)) > 1:
        return launch(
            start_training,
            devices,
            model=model,
            recipe=recipe,
            overrides=overrides,
            settings=settings,
            output=output,
            time_limit=time_limit,
        )
    if model is None and recipe is None:
        raise UserError("say which model to train with --model (`seg-tune models` lists them), or give a --recipe")
    changes = {**(overrides or {}), **parse_settings(settings)}
    if automatic := changes.get("train.batch_size") == "auto":
        del changes["train.batch_size"]
    asked = load_recipe(recipe or str(model), changes)
    if recipe and model and asked.model.name != model:
        raise UserError(f"--model {model}: {recipe} is a recipe of {asked.model.name}; give one of the two")
    require_writable(output)
    dataset = dataset_of(asked.data)
    resolved = asked.model_copy(update={"classes": list(dataset.train.classes)})
    _enter(device)
    if automatic:
        resolved = with_batch_size(resolved, fitting_batch_size(resolved, dataset))
    weights = resolve_pretrained(resolved.train.pretrained, resolved.model.name)
    return fit(resolved, dataset, output=output, weights=weights, time_limit=time_limit)


def resume_training(
    path: Path | None = None,
    *,
    output: Path = Path("output"),
    device: str = "auto",
    time_limit: float | None = None,
    ignored: Sequence[str] = (),
) -> tuple[Run, dict[str, Any]]:
    """Go on with the run at `path`, or with the newest in `output`.

    Raises UserError if there is none, if it has ended, or if settings are given that a running training cannot change.
    """
    if ignored:
        raise UserError(f"--resume goes on with the settings of the run; leave out {', '.join(ignored)}")
    run = Run.find(path, output=output)
    if run.ended in ENDED:
        raise UserError(f"{run.path}: this run has ended; start another, from its weights with --pretrained")
    require_writable(run.path, advice="make it writable, or start another run from its weights with --pretrained")
    if len(devices := split_devices(device)) > 1:
        return launch(resume_training, devices, path=run.path, time_limit=time_limit)
    recipe = run.recipe()
    dataset = dataset_of(recipe.data)
    _enter(device)
    # Ended before its first checkpoint, it begins again.
    weights = None if run.checkpoint.is_file() else resolve_pretrained(recipe.train.pretrained, recipe.model.name)
    return fit(recipe, dataset, weights=weights, resume=run, time_limit=time_limit)


def _enter(device: str) -> None:
    # Started by `paddle.distributed.launch`, a process has its device from there.
    chosen = paddle.device.get_device() if device == "auto" and distributed.count() > 1 else device
    set_device(chosen)
    distributed.join()
