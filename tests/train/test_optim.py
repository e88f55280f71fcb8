from __future__ import annotations

from typing import Any

import numpy as np
import paddle
import pytest
from paddle import nn

from toolkit.errors import UserError
from toolkit.recipe import Schedule, Train
from toolkit.train.optim import (
    build_optimizer,
    clip_gradients,
    freeze,
    lr_factor,
    multiplier,
    scaled_lr,
    train_mode,
    warmup_steps,
)


def settings(**changes: Any) -> Train:
    base = {
        "epochs": 10,
        "batch_size": 4,
        "lr": 0.1,
        "lr_batch_size": 4,
        "optimizer": {"name": "Momentum", "momentum": 0.0},
        "schedule": {"name": "constant"},
    }
    return Train.model_validate({**base, **changes})


def tiny() -> nn.Layer:
    paddle.seed(0)
    return nn.Sequential(("stem", nn.Conv2D(3, 4, 1)), ("norm", nn.BatchNorm2D(4)), ("head", nn.Conv2D(4, 2, 1)))


def moved(model: nn.Layer, train: Train) -> dict[str, float]:
    """How far one step with gradient 1 everywhere moves each parameter, on average."""
    optim = build_optimizer(model, train)
    optim.set_lr(scaled_lr(train))
    before = {name: p.numpy().copy() for name, p in model.named_parameters()}
    sum((p * 1.0).sum() for p in model.parameters() if not p.stop_gradient).backward()
    optim.step()
    return {name: float(np.mean(before[name] - p.numpy())) for name, p in model.named_parameters()}


def test_the_rate_grows_with_the_batch() -> None:
    assert scaled_lr(settings(batch_size=16)) == pytest.approx(0.4)
    assert scaled_lr(settings(batch_size=1)) == pytest.approx(0.025)


def test_a_step_schedule_falls_at_its_milestones() -> None:
    schedule = Schedule(name="step", milestones=[8, 9], gamma=0.1)
    factor = [lr_factor(s, schedule=schedule, epochs=10, steps_per_epoch=5) for s in (0, 39, 40, 44, 45, 49)]
    assert factor == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_a_cosine_ends_at_zero_unless_stretched() -> None:
    end = {"epochs": 10, "steps_per_epoch": 5}
    assert lr_factor(50, schedule=Schedule(name="cosine"), **end) == pytest.approx(0)
    assert lr_factor(25, schedule=Schedule(name="cosine"), **end) == pytest.approx(0.5)
    assert lr_factor(50, schedule=Schedule(name="cosine", stretch=1.2), **end) > 0.05


def test_warm_up_rises_in_a_line_and_never_fills_a_short_run() -> None:
    schedule = Schedule(name="constant", warmup_steps=1000, warmup_start=0.5)
    assert warmup_steps(schedule, epochs=10, steps_per_epoch=5) == 5
    assert warmup_steps(schedule, epochs=100, steps_per_epoch=1000) == 1000
    factor = [lr_factor(s, schedule=schedule, epochs=10, steps_per_epoch=5) for s in range(6)]
    assert factor == pytest.approx([0.5, 0.6, 0.7, 0.8, 0.9, 1.0])


def test_multipliers_reach_their_parameters_and_no_others() -> None:
    step = moved(tiny(), settings(lr_multipliers={"stem": 0.1, "stem.bias": 0.5}))
    assert step["stem.weight"] == pytest.approx(0.01, rel=1e-4)
    assert step["stem.bias"] == pytest.approx(0.05, rel=1e-4)
    assert step["head.weight"] == pytest.approx(0.1, rel=1e-4)


def test_the_longest_multiplier_wins() -> None:
    assert multiplier("a.b.c", {"a": 1.0, "a.b": 2.0, "x": 3.0}) == 2.0
    assert multiplier("z", {"a": 2.0}) == 1.0


@pytest.mark.parametrize("name", ["AdamW", "Momentum"])
@pytest.mark.parametrize("decay_norms", [True, False])
def test_norms_decay_only_where_asked(name: str, decay_norms: bool) -> None:
    def norm_step(decay: float) -> float:
        optimizer = {"name": name, "momentum": 0.0, "weight_decay": decay, "decay_norms": decay_norms}
        return moved(tiny(), settings(optimizer=optimizer))["norm.weight"]

    assert (norm_step(0.5) != pytest.approx(norm_step(0.0), rel=1e-3)) is decay_norms


def test_other_weights_always_decay() -> None:
    plain = moved(tiny(), settings())["head.weight"]
    decayed = moved(tiny(), settings(optimizer={"name": "Momentum", "momentum": 0.0, "weight_decay": 0.5}))
    assert decayed["head.weight"] != pytest.approx(plain, rel=1e-3)


def test_what_is_frozen_stays() -> None:
    model = tiny()
    assert freeze(model, ["stem"]) == 2
    step = moved(model, settings())
    assert step["stem.weight"] == 0
    assert step["head.weight"] != 0


def test_a_prefix_without_parameters_is_refused_with_the_parts() -> None:
    with pytest.raises(UserError, match="head, norm, stem"):
        freeze(tiny(), ["backbone"])


def test_a_model_frozen_whole_is_refused() -> None:
    model = tiny()
    freeze(model, ["stem", "norm", "head"])
    with pytest.raises(UserError, match="nothing is left to train"):
        build_optimizer(model, settings())


def test_frozen_parts_keep_their_statistics_and_others_learn_them() -> None:
    model = nn.Sequential(("backbone", nn.Sequential(nn.BatchNorm2D(2))), ("neck", nn.BatchNorm2D(2)))
    model.eval()
    train_mode(model, ["backbone"])
    model(paddle.full([1, 2, 3, 3], 4.0))
    assert model.backbone[0]._mean.numpy().tolist() == [0, 0]
    assert model.neck._mean.numpy().tolist() != [0, 0]


def test_gradients_are_clipped_by_the_norm_of_all_together() -> None:
    model = tiny()
    trained = [p for p in model.parameters() if not p.stop_gradient]
    sum((p * 2.0).sum() for p in trained).backward()
    norm = 2 * sum(p.size for p in trained) ** 0.5
    assert clip_gradients(trained, None) == pytest.approx(norm, rel=1e-5)
    assert clip_gradients(trained, norm + 1) == pytest.approx(norm, rel=1e-5)
    assert model.head.bias.grad.numpy()[0] == 2
    assert clip_gradients(trained, 0.5) == pytest.approx(norm, rel=1e-5)
    assert model.head.bias.grad.numpy()[0] == pytest.approx(2 * 0.5 / norm, rel=1e-5)
    assert clip_gradients(trained, None) == pytest.approx(0.5, rel=1e-5)


def test_gradients_that_are_not_finite_are_told_and_left() -> None:
    model = tiny()
    trained = [p for p in model.parameters() if not p.stop_gradient]
    sum(p.sum() for p in trained).backward()
    model.stem.weight.grad.set_value(np.full(model.stem.weight.shape, np.inf, "float32"))
    assert not np.isfinite(clip_gradients(trained, 0.5))
    assert model.head.bias.grad.numpy()[0] == 1
