from __future__ import annotations

from collections.abc import Callable
from itertools import permutations

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.losses.matching import AT_A_TIME, _mask_costs, hungarian, mask_costs


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


@pytest.mark.parametrize("costs", [mask_costs, lambda v, f, t: _mask_costs(paddle.matmul(v, f), t)])
def test_mask_costs_are_the_losses_of_every_pair(costs: Callable[..., tuple[paddle.Tensor, paddle.Tensor]]) -> None:
    paddle.seed(0)
    points = 2 * AT_A_TIME + 70
    vectors, features, targets = paddle.randn([2, 5, 16]), paddle.randn([16, points]), paddle.rand([3, points])
    entropy, dice = costs(vectors, features, targets)
    assert entropy.shape == dice.shape == [2, 5, 3]
    wide = paddle.matmul(vectors, features).unsqueeze(2).expand([2, 5, 3, points])
    each = targets.reshape([1, 1, 3, points]).expand(wide.shape)
    expected = F.binary_cross_entropy_with_logits(wide, each, reduction="none").mean(-1)
    np.testing.assert_allclose(entropy.numpy(), expected.numpy(), rtol=1e-4)
    p = F.sigmoid(wide)
    expected = 1 - (2 * (p * each).sum(-1) + 1) / (p.sum(-1) + each.sum(-1) + 1)
    np.testing.assert_allclose(dice.numpy(), expected.numpy(), rtol=1e-4)


@settings(max_examples=25)
@given(st.integers(0, 1000), st.integers(2, 300), st.integers(1, 20), st.integers(1, 3 * AT_A_TIME))
def test_equal_queries_cost_the_same_wherever_they_stand(seed: int, queries: int, objects: int, points: int) -> None:
    rng = np.random.default_rng(seed)
    vectors, features, targets = (
        rng.normal(size=shape).astype("float32") for shape in ([1, queries, 8], [8, points], [objects, points])
    )
    place = rng.permutation(queries)[:2]
    vectors[0, place] = vectors[0, 0]
    for cost in mask_costs(*(paddle.to_tensor(part) for part in (vectors, features, targets))):
        first, second = cost.numpy()[0, place]
        np.testing.assert_array_equal(first, second)


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_masks_that_are_not_finite_cost_nothing_finite_and_warn_of_nothing() -> None:
    vectors = paddle.to_tensor([[[float("nan")], [float("inf")], [1.0]]])
    entropy, _ = mask_costs(vectors, paddle.ones([1, 4]), paddle.ones([1, 4]))
    assert np.isfinite(entropy.numpy()).ravel().tolist() == [False, False, True]
