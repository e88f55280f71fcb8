from __future__ import annotations

from typing import Any

import numpy as np
import paddle
import pytest

from toolkit.nn.resnet import ResNet

VARIANTS: dict[str, dict[str, Any]] = {
    "18": {"depth": 18},
    "18-vd": {"depth": 18, "vd": True},
    "50": {},
    "50-vd": {"vd": True},
    "101": {"depth": 101},
    "X101-vd": {"depth": 101, "vd": True, "groups": 8, "group_width": 16},
}


def small(**overrides: Any) -> ResNet:
    paddle.seed(0)
    return ResNet(**{"width": 8, **overrides})


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS.keys())
def test_maps_have_strides_4_to_32(variant: dict[str, Any]) -> None:
    body = small(**variant)
    with paddle.no_grad():
        maps = body(paddle.randn([2, 3, 64, 96]))
    widest = 8 if variant.get("depth") == 18 else 32
    assert body.out_channels == [widest << i for i in range(4)]
    assert [x.shape for x in maps] == [[2, widest << i, 16 >> i, 24 >> i] for i in range(4)]


@pytest.mark.parametrize("vd", [False, True])
def test_odd_sizes_are_rounded_up(vd: bool) -> None:
    with paddle.no_grad():
        maps = small(depth=18, vd=vd)(paddle.randn([1, 3, 50, 70]))
    assert [x.shape[2:] for x in maps] == [[13, 18], [7, 9], [4, 5], [2, 3]]


def test_stages_after_the_last_that_is_asked_for_are_not_built() -> None:
    body = small(stages=(4,))
    assert body.out_channels == [128]
    assert not any("res5" in name for name, _ in body.named_parameters())
    (only,) = body(paddle.randn([1, 3, 32, 32]))
    assert only.shape == [1, 128, 2, 2]


def test_groups_make_the_middle_convolutions_sparse() -> None:
    # 64 groups of 4 channels, of a stem of 64; here an eighth of it all.
    weights = small(depth=101, groups=8, group_width=32).state_dict()
    assert weights["res2.res2a.branch2b.conv.weight"].shape == [32, 4, 3, 3]
    assert weights["res4.res4b1.branch2b.conv.weight"].shape == [128, 16, 3, 3]
    assert weights["res2.res2a.branch2c.conv.weight"].shape == [32, 32, 1, 1]


def test_frozen_norms_apply_their_statistics_and_keep_them() -> None:
    body = small(depth=18)
    norm = body.res3.res3a.branch2a.norm
    norm._mean.set_value(paddle.full([16], 0.5))
    image = paddle.randn([2, 3, 32, 32]) * 3 + 1
    body.train()
    training = body(image)
    assert (norm._mean == 0.5).all()
    body.eval()
    for a, b in zip(training, body(image), strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-5)


def test_norms_learn_where_nothing_is_frozen() -> None:
    body = small(depth=18, freeze=False)
    body.train()
    before = body.res3.res3a.branch2a.norm._mean.numpy().copy()
    body(paddle.randn([2, 3, 32, 32]) * 3 + 1)
    assert np.abs(body.res3.res3a.branch2a.norm._mean.numpy() - before).max() > 0
    for name, parameter in body.named_parameters():
        assert parameter.stop_gradient == name.endswith(("_mean", "_variance")), name


def test_stem_res2_and_norms_are_what_is_frozen() -> None:
    for name, parameter in small().named_parameters():
        frozen = name.startswith(("conv1.", "res2.")) or ".norm." in name
        assert parameter.stop_gradient == frozen, name
