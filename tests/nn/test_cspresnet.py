from __future__ import annotations

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

from toolkit.nn.csppan import CSPPAN, SpatialPyramid
from toolkit.nn.cspresnet import CSPResNet, RepConv


def test_strides_and_channels() -> None:
    net = CSPResNet(channels=(8, 16, 24, 32, 40), blocks=(1, 1, 2, 1))
    features = net(paddle.rand([2, 3, 64, 96]))
    assert [f.shape for f in features] == [[2, 24, 8, 12], [2, 32, 4, 6], [2, 40, 2, 3]]
    assert net.out_channels == (24, 32, 40)


def test_the_neck_returns_coarse_levels_first() -> None:
    neck = CSPPAN(in_channels=(24, 32, 40), out_channels=(48, 32, 16), blocks=1)
    levels = neck([paddle.rand([2, 24, 8, 12]), paddle.rand([2, 32, 4, 6]), paddle.rand([2, 40, 2, 3])])
    assert [level.shape for level in levels] == [[2, 48, 2, 3], [2, 32, 4, 6], [2, 16, 8, 12]]


def test_the_pyramid_sees_5_9_and_13_cells() -> None:
    pyramid = SpatialPyramid(2)
    pyramid.conv = paddle.nn.Identity()
    x = paddle.randn([1, 2, 20, 17])
    expected = [x, *(F.max_pool2d(x, k, stride=1, padding=k // 2) for k in (5, 9, 13))]
    np.testing.assert_array_equal(pyramid(x).numpy(), paddle.concat(expected, axis=1).numpy())


@pytest.mark.parametrize(("alpha", "counts_as"), [(0.3, 0.3), (1.0, 1.0), (0.0, 1.0), (-2.0, 1.0)])
def test_an_alpha_that_is_not_positive_counts_as_one(alpha: float, counts_as: float) -> None:
    conv = RepConv(4, weighted=True)
    conv.eval()
    conv.alpha.set_value(paddle.to_tensor([alpha]))
    x = paddle.randn([1, 4, 6, 6])
    np.testing.assert_allclose(
        conv(x).numpy(), F.swish(conv.conv1(x) + counts_as * conv.conv2(x)).numpy(), rtol=1e-5, atol=1e-6
    )
