from __future__ import annotations

import numpy as np
import paddle

from toolkit.losses.dice import dice_cost, dice_loss


def test_the_same_mask_costs_nothing_and_another_nearly_one() -> None:
    full, empty = paddle.ones([1000]), paddle.zeros([1000])
    assert dice_loss(full, full).item() == 0
    assert dice_loss(empty, empty).item() == 0
    assert dice_loss(full, empty).item() > 0.99
    half = paddle.concat([paddle.ones([500]), paddle.zeros([500])])
    np.testing.assert_allclose(dice_loss(half, full).item(), 1 - 1001 / 1501, rtol=1e-5)


def test_the_cost_of_every_pair_is_its_loss() -> None:
    paddle.seed(0)
    masks, targets = paddle.rand([2, 5, 60]), paddle.rand([2, 3, 60]).round()
    cost = dice_cost(masks, targets)
    assert cost.shape == [2, 5, 3]
    np.testing.assert_allclose(cost.numpy(), dice_loss(masks.unsqueeze(2), targets.unsqueeze(1)).numpy(), rtol=1e-5)
