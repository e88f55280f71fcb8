from __future__ import annotations

import numpy as np
import paddle

from toolkit.losses.points import sample, uncertain_points


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
    points = uncertain_points(logits, count=400)
    assert points.shape == [1, 2, 400, 2]
    assert 0 <= points.min().item() <= points.max().item() <= 1
    for prediction in range(2):
        doubt = sample(logits[:, prediction : prediction + 1], points[:, prediction]).abs().numpy().ravel()
        # A quarter of a ramp of candidates is within 1 of zero.
        assert np.quantile(doubt[:300], 0.99) < 1.3
        assert doubt[300:].mean() > 1.5
    # The random rest is common to both predictions.
    np.testing.assert_array_equal(points[0, 0, 300:].numpy(), points[0, 1, 300:].numpy())
