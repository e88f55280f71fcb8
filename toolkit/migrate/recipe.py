"""`seg-tune import`: a config of PaddleDetection or PaddleX made into a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.errors import UserError
from toolkit.migrate.chain import read_chain
from toolkit.migrate.config import Config, number
from toolkit.migrate.network import find_network
from toolkit.migrate.pictures import set_data, set_pictures
from toolkit.recipe import Recipe, dump_recipe, load_recipe
from toolkit.zoo import find_model

DEVICES = {"DETR": 4}
"""For how many the learning rates of PaddleDetection's configs are, by architecture; of others, for 8."""
SILENT = (
    *("use_*pu", "use_mlu", "log_iter", "save_dir", "weights", "print_*", "export.*", "TestReader.*", "TestDataset.*"),
    *("metric", "num_classes", "target_metrics", "find_unused_parameters", "eval_height", "eval_width", "eval_size"),
    *("*Reader.shuffle", "*Reader.drop_last", "*Reader.collate_batch", "*Reader.use_shared_memory", "*_black_list"),
    *(
        "ema_filter_no_grad",
        "use_vdl",
        "vdl_log_dir",
        "log_ranks",
        "filename",
        "fuse_normalize",
        "task",
        "*.data_fields",
    ),
)
"""Keys of PaddleDetection that say where and how it computes, or what here comes from the data."""
SILENT_PADDLEX = (
    *("Global.mode", "Global.output", "CheckDataset.*", "Train.num_classes", "Train.log_interval", "Evaluate.*"),
    *("Export.*", "Predict.*", "Train.use_vdl"),
)


@dataclass(frozen=True)
class Imported:
    recipe: Recipe
    lost: list[str]
    """What has no counterpart, a line each."""
    devices: int
    """For how many its learning rate was taken to be."""


def import_config(path: Path, out: Path, *, devices: int | None = None) -> Imported:
    """Write the recipe of a PaddleDetection or PaddleX config to `out`; what has no counterpart stands in its head.

    Args:
        devices: how many the config's learning rate and batch size were for; by default what PaddleX's `Global.device`
            lists, or what PaddleDetection's docs train with.

    Raises UserError for a config of another kind or of a model that is not here, and if `out` exists.
    """
    if out.exists():
        raise UserError(f"{out}: exists already; remove it, or choose another --output")
    config = Config(read_chain(path), path)
    try:
        if config.peek("architecture"):
            changes, count = _from_detection(config, devices)
        elif config.peek("Global.model"):
            changes, count = _from_paddlex(config, devices)
        else:
            raise UserError(f"{path}: neither PaddleDetection's (no architecture) nor PaddleX's (no Global.model)")
    except (TypeError, ValueError, AttributeError) as error:
        # Lists where there should be mappings, and the like.
        raise UserError(f"{path}: a value is of another kind than PaddleDetection takes: {error}") from None
    recipe = load_recipe(changes.pop("model.name"), changes)
    lost = config.lost()
    rate = f"{recipe.train.lr} is the rate for {recipe.train.lr_batch_size} pictures a step"
    head = [f"# From {path.name} by `seg-tune import`; {rate}."]
    head += ["#", "# Without a counterpart:"] * bool(lost) + [f"#   {line}" for line in lost]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("\n".join([*head, "", dump_recipe(recipe)]), encoding="utf-8")
    return Imported(recipe, lost, count)


def _from_detection(config: Config, devices: int | None) -> tuple[dict[str, Any], int]:
    count = devices or DEVICES.get(str(config.peek("architecture")), 8)
    network = find_network(config)
    changes: dict[str, Any] = {"model.name": network.model}
    if network.options:
        own = load_recipe(network.model).model.options
        changes |= {"model.options": {**own, **network.options}}
    for pattern in SILENT:
        config.drop(pattern)
    set_data(config, changes)
    set_pictures(config, changes)
    _set_schedule(config, changes)
    _set_optimizer(config, changes)
    _set_multipliers(config, changes)
    if (batch := config.take_number("TrainReader.batch_size")) is not None:
        changes |= {"train.batch_size": batch, "train.lr_batch_size": batch * count}
    for key, ours in (("worker_num", "data.workers"), ("snapshot_epoch", "train.eval_every")):
        if (value := config.take_number(key)) is not None:
            changes[ours] = value
    if (value := config.take_number("EvalReader.batch_size")) is not None:
        changes["evaluate.batch_size"] = value
    _set_pretrained(config, changes, network.model, bool(network.options))
    return changes, count


def _set_schedule(config: Config, changes: dict[str, Any]) -> None:
    if (epochs := config.take_number("epoch")) is not None:
        changes["train.epochs"] = epochs
    if (rate := config.take_number("LearningRate.base_lr")) is not None:
        changes["train.lr"] = rate
    schedulers = config.take_list("LearningRate.schedulers")
    if not schedulers:
        return
    schedule: dict[str, Any] = {"name": "constant"}
    warmup: dict[str, Any] = {}
    warm: Any = True
    for entry, place in schedulers:
        said = {"name": entry} if isinstance(entry, str) else dict(entry)
        name = said.pop("name", None)
        if name == "PiecewiseDecay" and isinstance(said.get("gamma", 0.1), (int, float)):
            gamma = said.pop("gamma", 0.1)
            milestones = [number(one, place, "milestones") for one in said.pop("milestones", [])]
            if gamma != 1 and (inside := [one for one in milestones if epochs is None or one < epochs]):
                schedule |= {"name": "step", "gamma": gamma, "milestones": inside}
            warm = said.pop("use_warmup", True)
        elif name == "CosineDecay":
            whole = number(said.pop("max_epochs", epochs or 1), place, "max_epochs")
            stretch = round(whole / epochs, 6) if epochs else 1.0
            if stretch < 1:
                config.lose(place, f"CosineDecay.max_epochs: {whole} (the wave lasts as long as the training here)")
            schedule |= {"name": "cosine", "stretch": max(1.0, stretch)}
            warm = said.pop("use_warmup", True)
        elif name == "LinearWarmup":
            warmup["warmup_start"] = said.pop("start_factor", 0.333)
            warmup["warmup_steps"] = said.pop("steps", 0 if "epochs" in said else 500)
            warmup["warmup_epochs"] = said.pop("epochs", 0)
            said.pop("epochs_first", None)
        else:
            config.lose(place, f"LearningRate.schedulers: {name}")
            continue
        for key, value in said.items():
            config.lose(place, f"LearningRate.schedulers: {name}.{key}: {value}")
    changes["train.schedule"] = {**schedule, **(warmup if warm else {})}
    # Named by themselves they are not moved in proportion to the epochs.
    changes["train.schedule.milestones"] = schedule.get("milestones", [])


def _set_optimizer(config: Config, changes: dict[str, Any]) -> None:
    kind = config.peek("OptimizerBuilder.optimizer.type")
    if kind not in (None, "Momentum", "AdamW"):
        config.note("OptimizerBuilder.optimizer.type", "the model's own is taken; there are Momentum and AdamW")
    elif config.take("OptimizerBuilder.optimizer.type"):
        changes["train.optimizer.name"] = kind
    decay = config.take_number("OptimizerBuilder.optimizer.weight_decay")
    regularizer = config.take("OptimizerBuilder.regularizer")
    if config.peek("OptimizerBuilder.regularizer.type", "L2") == "L2":
        config.take("OptimizerBuilder.regularizer.type")
        decay = config.take("OptimizerBuilder.regularizer.factor", decay)
    if decay is not None:
        changes["train.optimizer.weight_decay"] = decay
    elif regularizer is False or (regularizer is None and config.peek("OptimizerBuilder.regularizer") is not None):
        changes["train.optimizer.weight_decay"] = 0.0
    if (momentum := config.take_number("OptimizerBuilder.optimizer.momentum")) is not None:
        changes["train.optimizer.momentum"] = momentum
    changes["train.clip_norm"] = config.take_number("OptimizerBuilder.clip_grad_by_norm")
    if config.take("use_ema"):
        ramp = config.peek("ema_decay_type", "threshold")
        if ramp in ("exponential", "threshold"):
            config.take("ema_decay_type")
        else:
            config.note("ema_decay_type", "there are exponential and threshold")
            ramp = "threshold"
        changes["train.ema"] = {"decay": config.take("ema_decay", 0.9998), "ramp": ramp}
    else:
        changes["train.ema"] = None


def _set_multipliers(config: Config, changes: dict[str, Any]) -> None:
    factors = config.take("ResNet.lr_mult_list")
    if isinstance(factors, list) and any(factor != 1 for factor in factors):
        changes["train.lr_multipliers"] = {f"backbone.res{i}": factor for i, factor in enumerate(factors, 2)}
    stages = config.peek("PPHGNetV2.lr_mult_list")
    if isinstance(stages, list) and len(stages) == 5:
        config.take("PPHGNetV2.lr_mult_list")
        # The stem, whose factor comes first, is frozen.
        same = len(set(stages[1:])) == 1
        each = {f"backbone.stages.{i}.": factor for i, factor in enumerate(stages[1:])}
        changes["train.lr_multipliers"] = {"backbone.stages": stages[1]} if same else each


def _set_pretrained(config: Config, changes: dict[str, Any], model: str, variant: bool) -> None:
    said = config.peek("pretrain_weights")
    if said and Path(str(said)).is_file():
        changes["train.pretrained"] = str(config.take("pretrain_weights"))
    elif said == find_model(model).url:
        config.take("pretrain_weights")
    elif variant:
        changes["train.pretrained"] = "none"
        config.note(
            "pretrain_weights", "there are no official weights of this size here; give a file with --pretrained"
        )
    elif said:
        config.note("pretrain_weights", "training starts from the official weights of the whole model")


def _from_paddlex(config: Config, devices: int | None) -> tuple[dict[str, Any], int]:
    device = str(config.take("Global.device", "cpu"))
    count = devices or (device.partition(":")[2].count(",") + 1)
    changes: dict[str, Any] = {"model.name": find_model(str(config.take("Global.model"))).name}
    for pattern in SILENT_PADDLEX:
        config.drop(pattern)
    for key, ours in {
        "Global.dataset_dir": "data.path",
        "Train.epochs_iters": "train.epochs",
        "Train.learning_rate": "train.lr",
        "Train.warmup_steps": "train.schedule.warmup_steps",
        "Train.eval_interval": "train.eval_every",
    }.items():
        if (value := config.take(key)) is not None:
            changes[ours] = value
    if (batch := config.take_number("Train.batch_size")) is not None:
        changes |= {"train.batch_size": batch, "train.lr_batch_size": batch * count}
    weights = config.peek("Train.pretrain_weight_path")
    if weights and Path(str(weights)).is_file():
        changes["train.pretrained"] = str(weights)
    elif weights and weights != find_model(changes["model.name"]).url:
        config.note("Train.pretrain_weight_path", "no such file; training starts from the official weights")
    if weights is None or "train.pretrained" in changes or weights == find_model(changes["model.name"]).url:
        config.take("Train.pretrain_weight_path")
    if config.peek("Train.resume_path") is None:
        config.take("Train.resume_path")
    return changes, count
