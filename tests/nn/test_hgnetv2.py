from __future__ import annotations

import paddle
import pytest

from toolkit.nn.hgnetv2 import SIZES, HGNetV2


@pytest.mark.parametrize(("size", "channels"), [("S", [64, 256, 512, 1024]), ("M", [96, 384, 768, 1536])])
def test_four_maps_at_strides_4_to_32(size: str, channels: list[int]) -> None:
    network = HGNetV2(SIZES[size])
    network.eval()
    with paddle.no_grad():
        levels = network(paddle.rand([1, 3, 64, 96]))
    shapes = [tuple(level.shape) for level in levels]
    assert shapes == [(1, c, 64 // s, 96 // s) for c, s in zip(channels, (4, 8, 16, 32), strict=True)]
    assert network.channels == channels


def test_frozen_norms_use_their_statistics_and_keep_them() -> None:
    paddle.seed(0)
    network = HGNetV2(SIZES["S"].scaled(0.25))
    image = paddle.rand([2, 3, 32, 32])
    before = {key: value.numpy() for key, value in network.state_dict().items()}
    trained = network(image)[-1]
    network.eval()
    assert (trained == network(image)[-1]).all()
    assert all((value.numpy() == before[key]).all() for key, value in network.state_dict().items())


def test_unfrozen_norms_learn() -> None:
    network = HGNetV2(SIZES["S"].scaled(0.25), freeze=False)
    before = network.stem.stem1.bn._mean.numpy()
    network(paddle.rand([2, 3, 32, 32]))
    assert (network.stem.stem1.bn._mean.numpy() != before).any()
    assert not network.stem.stem1.bn.weight.stop_gradient


def test_scaling_keeps_the_shape_of_the_network() -> None:
    small = SIZES["L"].scaled(0.25)
    assert small.stem == (8, 12)
    assert [stage.out for stage in small.stages] == [32, 128, 256, 512]
    assert [stage.blocks for stage in small.stages] == [stage.blocks for stage in SIZES["L"].stages]
