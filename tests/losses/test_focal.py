from __future__ import annotations

import numpy as np
import paddle

from toolkit.losses.focal import focal_cost, varifocal_loss


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def test_varifocal_loss_by_its_formula() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(0, 2, 50)
    q = np.where(rng.random(50) < 0.4, rng.random(50), -1.0)
    p = sigmoid(x)
    positive = q * -(q * np.log(p) + (1 - q) * np.log(1 - p))
    expected = np.where(q >= 0, positive, 0.75 * p**2 * -np.log(1 - p))
    actual = varifocal_loss(paddle.to_tensor(x.astype("float32")), paddle.to_tensor(q.astype("float32")))
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-4, atol=1e-6)


def test_an_object_of_no_overlap_is_not_a_negative() -> None:
    logit = paddle.to_tensor([2.0, 2.0])
    positive, negative = varifocal_loss(logit, paddle.to_tensor([0.0, -1.0])).tolist()
    assert positive == 0
    assert negative > 1


def test_varifocal_loss_is_least_at_the_overlap() -> None:
    logits = paddle.linspace(-6, 6, 601)
    loss = varifocal_loss(logits, paddle.full_like(logits, 0.7))
    assert abs(sigmoid(logits[int(loss.argmin())].item()) - 0.7) < 0.01


def test_focal_cost_prefers_high_scores_and_stays_finite() -> None:
    cost = focal_cost(paddle.to_tensor([-100.0, -3.0, 0.0, 3.0, 100.0])).numpy()
    assert np.isfinite(cost).all()
    assert (np.diff(cost) < 0).all()
    assert cost[2] == np.float32(-0.25 * 0.25 * np.log(0.5) + 0.75 * 0.25 * np.log(0.5))
