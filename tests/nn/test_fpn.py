from __future__ import annotations

import numpy as np
import paddle
import pytest

from toolkit.nn.fpn import FPN

CHANNELS = (8, 16, 32, 64)


def maps(height: int = 16, width: int = 24) -> list[paddle.Tensor]:
    return [paddle.randn([2, c, height >> i, width >> i]) for i, c in enumerate(CHANNELS)]


@pytest.fixture
def pyramid() -> FPN:
    paddle.seed(0)
    return FPN(in_channels=CHANNELS, out_channels=4)


def test_five_levels_of_one_width(pyramid: FPN) -> None:
    levels = pyramid(maps())
    assert [level.shape for level in levels] == [[2, 4, -(-16 >> i), -(-24 >> i)] for i in range(4)] + [[2, 4, 1, 2]]


def test_the_last_level_is_every_other_pixel_of_the_one_before(pyramid: FPN) -> None:
    *_, fourth, fifth = pyramid(maps(32, 64))
    np.testing.assert_array_equal(fifth.numpy(), fourth[:, :, ::2, ::2].numpy())


def test_coarse_maps_reach_the_finer_levels_and_not_the_other_way_round(pyramid: FPN) -> None:
    features = maps()
    before = pyramid(features)
    for changed in range(4):
        after = pyramid([x + (i == changed) for i, x in enumerate(features)])
        moved = [bool((a != b).any()) for a, b in zip(after, before, strict=True)]
        assert moved == [i <= changed for i in range(4)] + [changed == 3]


def test_levels_follow_the_definition(pyramid: FPN) -> None:
    features = maps()
    weights = pyramid.state_dict()

    def convolved(name: str, x: paddle.Tensor, padding: int) -> paddle.Tensor:
        return paddle.nn.functional.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=padding)

    above = None
    for i in (5, 4, 3, 2):
        x = convolved(f"fpn_inner_res{i}_sum" + ("_lateral" if i < 5 else ""), features[i - 2], 0)
        above = x if above is None else x + above.repeat_interleave(2, 2).repeat_interleave(2, 3)
        level = convolved(f"fpn_res{i}_sum", above, 1)
        np.testing.assert_allclose(pyramid(features)[i - 2].numpy(), level.numpy(), atol=1e-5)
