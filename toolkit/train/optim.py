"""Learning rates and optimizers, as a recipe describes them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import paddle
from paddle import Tensor, nn, optimizer

from toolkit.errors import UserError
from toolkit.recipe import Schedule, Train

NORMS = (nn.BatchNorm2D, nn.SyncBatchNorm, nn.LayerNorm, nn.GroupNorm)


def scaled_lr(train: Train) -> float:
    """The recipe's learning rate in proportion to the batch size in use (Goyal et al. 2017)."""
    return train.lr * train.batch_size / train.lr_batch_size


def lr_factor(step: int, *, schedule: Schedule, epochs: int, steps_per_epoch: int) -> float:
    """What the learning rate is multiplied by at `step`, counted from 0 over the whole training."""
    total = epochs * steps_per_epoch
    warmup = warmup_steps(schedule, epochs=epochs, steps_per_epoch=steps_per_epoch)
    if step < warmup:
        return schedule.warmup_start + (1 - schedule.warmup_start) * step / warmup
    if schedule.name == "constant":
        return 1.0
    if schedule.name == "step":
        passed = sum(step >= milestone * steps_per_epoch for milestone in schedule.milestones)
        return float(schedule.gamma**passed)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, step / (total * schedule.stretch))))


def warmup_steps(schedule: Schedule, *, epochs: int, steps_per_epoch: int) -> int:
    """Steps of warm-up: what the schedule asks for, but at most a tenth of the training."""
    wanted = max(schedule.warmup_steps, round(schedule.warmup_epochs * steps_per_epoch))
    return min(wanted, epochs * steps_per_epoch // 10)


def freeze(model: nn.Layer, prefixes: list[str]) -> int:
    """Stop the training of all parameters whose name starts with one of `prefixes`; return how many that are.

    Raises UserError for a prefix that no parameter has.
    """
    count = 0
    for prefix in prefixes:
        hits = [parameter for name, parameter in model.named_parameters() if name.startswith(prefix)]
        if not hits:
            first = ", ".join(sorted({name.split(".")[0] for name, _ in model.named_parameters()}))
            raise UserError(f"train.freeze: no parameter starts with {prefix!r}; the parts of this model: {first}")
        for parameter in hits:
            parameter.stop_gradient = True
        count += len(hits)
    return count


def train_mode(model: nn.Layer, prefixes: list[str]) -> None:
    """Put `model` into train mode but for the parts that are frozen, whose norms would go on learning statistics."""
    model.train()
    for name, layer in model.named_sublayers():
        if any(f"{name}.".startswith(f"{prefix}.") for prefix in prefixes):
            layer.eval()


def build_optimizer(model: nn.Layer, train: Train) -> optimizer.Optimizer:
    """The recipe's optimizer over the trainable parameters of `model`.

    A parameter's own factor of the learning rate is that of the longest matching key in `train.lr_multipliers`.
    The learning rate itself is set before each step with `set_lr`.
    """
    settings = train.optimizer
    exempt = set() if settings.decay_norms else set(_norm_parameters(model))
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.stop_gradient:
            decay = 0.0 if name in exempt else settings.weight_decay
            groups.setdefault((multiplier(name, train.lr_multipliers), decay), []).append(parameter)
    if not groups:
        raise UserError("train.freeze: nothing is left to train")
    common = {
        "learning_rate": scaled_lr(train),
        "parameters": [
            {"params": members, "learning_rate": factor, "weight_decay": decay}
            for (factor, decay), members in groups.items()
        ],
    }
    if settings.name == "AdamW":
        return optimizer.AdamW(**common)
    return optimizer.Momentum(momentum=settings.momentum, **common)


def multiplier(name: str, multipliers: dict[str, float]) -> float:
    """The factor of the longest key that `name` starts with; 1 where none does."""
    matches = [prefix for prefix in multipliers if name.startswith(prefix)]
    return multipliers[max(matches, key=len)] if matches else 1.0


@paddle.no_grad()
def clip_gradients(parameters: Sequence[Tensor], limit: float | None, *, scale: float = 1.0) -> float:
    """Divide the gradients of all `parameters` by `scale`, and clip them together to an L2 norm of at most `limit`.

    Returns the norm before clipping; not finite if a gradient is not, and then all are left as they are.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    squares = [gradient.astype("float32").square().sum() for gradient in gradients]
    norm = float(paddle.stack(squares).sum().sqrt()) / scale if squares else 0.0
    factor = limit / norm / scale if limit and limit < norm else 1 / scale
    if factor != 1 and math.isfinite(norm):
        for gradient in gradients:
            gradient.scale_(factor)
    return norm


def _norm_parameters(model: nn.Layer) -> Iterator[str]:
    for path, layer in model.named_sublayers():
        if isinstance(layer, NORMS):
            yield from (f"{path}.{name}" for name, _ in layer.named_parameters(include_sublayers=False))
