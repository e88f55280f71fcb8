from __future__ import annotations

import numpy as np
import paddle
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.losses.points import _losses, _LossesTogether, _undecided, point_losses, sample, sample_together


def test_a_map_at_the_centre_of_its_pixels_is_itself() -> None:
    maps = paddle.randn([2, 3, 4, 5])
    y, x = np.meshgrid((np.arange(4) + 0.5) / 4, (np.arange(5) + 0.5) / 5, indexing="ij")
    points = paddle.to_tensor(np.stack([x, y], -1).reshape(1, -1, 2).repeat(2, 0).astype("float32"))
    np.testing.assert_allclose(sample(maps, points).reshape([2, 3, 4, 5]).numpy(), maps.numpy(), atol=1e-5)


def test_values_between_pixels_and_beyond_the_map() -> None:
    maps = paddle.to_tensor([[[[0.0, 1.0], [2.0, 3.0]]]])
    values = sample(maps, paddle.to_tensor([[[0.5, 0.5], [0.5, 0.25], [1.0, 0.25], [2.0, 2.0]]]))
    np.testing.assert_allclose(values.numpy()[0, 0], [1.5, 0.5, 0.5, 0.0], atol=1e-6)


def test_three_quarters_of_the_points_lie_where_a_mask_is_undecided() -> None:
    rng = np.random.default_rng(0)
    values = rng.uniform(-4, 4, (2, 1300)).astype("float32")
    index = _undecided(values, 1200, 300)
    assert index.shape == (2, 400)
    for row, (own, chosen) in enumerate(zip(values, index - [[0], [1300]], strict=True)):
        np.testing.assert_array_equal(chosen[300:], np.arange(1200, 1300))
        assert len(set(chosen.tolist())) == 400, row
        assert np.abs(own[chosen[:300]]).max() <= np.sort(np.abs(own[:1200]))[299]


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_values_are_those_of_grid_sample(seed: int) -> None:
    rng = np.random.default_rng(seed)
    objects, predictions, height, width, count = rng.integers(1, 6, 5)
    maps = paddle.to_tensor(rng.normal(size=(objects, predictions, height, width)).astype("float32"))
    points = paddle.to_tensor(rng.uniform(-0.3, 1.3, (objects, count, 2)).astype("float32"))
    np.testing.assert_allclose(sample_together(maps, points).numpy(), sample(maps, points).numpy(), atol=5e-6)


@given(st.integers(0, 1000), st.integers(1, 12), st.integers(1, 12), st.sampled_from([1.0, 200.0]))
@settings(max_examples=40, deadline=None)
def test_losses_and_gradients_are_those_of_paddles_operators(seed: int, chosen: int, rest: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    objects, predictions, height, width = rng.integers(1, 6, 4)
    maps = scale * rng.normal(size=(objects, predictions, height, width)).astype("float32")
    targets = paddle.to_tensor(rng.random((objects, 1, 2 * height, 2 * width)).astype("float32"))
    points = [paddle.to_tensor(rng.random((objects, count, 2)).astype("float32")) for count in (12, rest)]
    weights = [paddle.to_tensor(rng.normal(size=(objects, predictions)).astype("float32")) for _ in range(2)]
    found = []
    for losses in (_LossesTogether.apply, _losses):
        logits = paddle.to_tensor(maps, stop_gradient=False)
        values = losses(logits, targets, *points, chosen)
        sum((value * weight).sum() for value, weight in zip(values, weights, strict=True)).backward()
        found.append([each.numpy() for each in (*values, logits.grad)])
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-4 * scale**0.5, rtol=1e-4)


def test_points_that_are_equally_undecided() -> None:
    logits = paddle.zeros([1, 3, 4, 4])
    entropy, dice = point_losses(logits, paddle.ones([1, 8, 8]), count=100)
    np.testing.assert_allclose(entropy.numpy(), np.log(2) * np.ones((1, 3)), rtol=0.05)  # the target ends at its border
    assert (dice.numpy() < 0.4).all()


def test_the_losses_of_a_diverged_mask_are_not_finite() -> None:
    logits = paddle.to_tensor(np.full((1, 2, 4, 4), np.nan, "float32"), stop_gradient=False)
    entropy, dice = point_losses(logits, paddle.zeros([1, 8, 8]), count=20)
    assert entropy.isnan().all()
    assert dice.isnan().all()
