from __future__ import annotations

import numpy as np
import paddle
import paddle.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.losses.points import sample, sample_together, sample_uncertain


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
    paddle.seed(0)
    ramp = paddle.linspace(-4, 4, 64).expand([64, 64])
    logits = paddle.stack([ramp, ramp.t()]).unsqueeze(0)  # one object, two predictions
    target = ramp.unsqueeze(0)
    values, truth = sample_uncertain(logits, target, count=400)
    assert values.shape == truth.shape == [1, 2, 400]
    for doubt in values[0].abs().numpy():
        # A quarter of a ramp of candidates is within 1 of zero.
        assert np.quantile(doubt[:300], 0.99) < 1.3
        assert doubt[300:].mean() > 1.5
    # The target is the first prediction: both were sampled at the same points, the random rest in common.
    np.testing.assert_array_equal(values[0, 0].numpy(), truth[0, 0].numpy())
    np.testing.assert_array_equal(truth[0, 0, 300:].numpy(), truth[0, 1, 300:].numpy())
    assert (truth[0, 0, :300] != truth[0, 1, :300]).any()


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_values_and_gradients_are_those_of_grid_sample(seed: int) -> None:
    rng = np.random.default_rng(seed)
    objects, predictions, height, width, count = rng.integers(1, 6, 5)
    maps = rng.normal(size=(objects, predictions, height, width)).astype("float32")
    points = paddle.to_tensor(rng.uniform(-0.3, 1.3, (objects, count, 2)).astype("float32"))
    weight = paddle.to_tensor(rng.normal(size=(objects, predictions, count)).astype("float32"))
    ours, theirs = (paddle.to_tensor(maps, stop_gradient=False) for _ in range(2))
    found = sample_together(ours, points)
    expected = F.grid_sample(theirs, 2 * points.unsqueeze(1) - 1, align_corners=False).squeeze(2)
    np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=2e-6)
    (found * weight).sum().backward()
    (expected * weight).sum().backward()
    np.testing.assert_allclose(ours.grad.numpy(), theirs.grad.numpy(), atol=2e-5)
