from __future__ import annotations

from itertools import permutations

import numpy as np
import paddle
import paddle.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.losses.matching import hungarian, mask_costs


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 6), st.integers(1, 4))
def test_no_assignment_costs_less(seed: int, queries: int, objects: int) -> None:
    costs = np.random.default_rng(seed).normal(size=(2, queries, objects)).astype("float32")
    found_queries, found_objects = hungarian(costs)
    count = min(queries, objects)
    assert found_queries.shape == found_objects.shape == (2, count)
    for cost, query, owned in zip(costs, found_queries, found_objects, strict=True):
        assert (np.diff(query) > 0).all()
        assert len(set(owned.tolist())) == count
        small, rows = (cost, True) if queries <= objects else (cost.T, False)
        best = min(small[np.arange(count), list(p)].sum() for p in permutations(range(small.shape[1]), count))
        assert rows or count == objects
        np.testing.assert_allclose(cost[query, owned].sum(), best, rtol=1e-5, atol=1e-5)


def test_what_is_not_finite_is_the_worst() -> None:
    costs = np.array([[[np.nan], [np.inf], [5.0]]], "float32")
    assert hungarian(costs)[0].tolist() == [[2]]
    assert hungarian(np.full((1, 3, 1), np.nan, "float32"))[0].shape == (1, 1)


def test_mask_costs_are_the_losses_of_every_pair() -> None:
    paddle.seed(0)
    logits, targets = 4 * paddle.randn([2, 5, 70]), paddle.rand([3, 70])
    entropy, dice = mask_costs(logits, targets)
    assert entropy.shape == dice.shape == [2, 5, 3]
    wide, each = logits.unsqueeze(2).expand([2, 5, 3, 70]), targets.reshape([1, 1, 3, 70]).expand([2, 5, 3, 70])
    expected = F.binary_cross_entropy_with_logits(wide, each, reduction="none").mean(-1)
    np.testing.assert_allclose(entropy.numpy(), expected.numpy(), rtol=1e-4)
    p = F.sigmoid(wide)
    expected = 1 - (2 * (p * each).sum(-1) + 1) / (p.sum(-1) + each.sum(-1) + 1)
    np.testing.assert_allclose(dice.numpy(), expected.numpy(), rtol=1e-4)
