from __future__ import annotations

import numpy as np
import paddle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.losses.dfl import distribution_focal_loss


@given(st.integers(0, 10**6), st.floats(0, 6.99))
def test_equals_the_definition(seed: int, target: float) -> None:
    logits = np.random.default_rng(seed).normal(0, 2, 8)
    p = np.exp(logits) / np.exp(logits).sum()
    low = int(np.float32(target))
    expected = -((low + 1 - target) * np.log(p[low]) + (target - low) * np.log(p[low + 1]))
    loss = distribution_focal_loss(
        paddle.to_tensor(logits[None], dtype="float32"), paddle.to_tensor([target], dtype="float32")
    )
    assert loss.tolist() == pytest.approx([expected], rel=1e-3, abs=1e-4)


def test_is_least_where_the_expectation_is_the_target() -> None:
    logits = paddle.zeros([1, 8])
    logits.stop_gradient = False
    for _ in range(300):
        loss = distribution_focal_loss(logits, paddle.to_tensor([2.25])).sum()
        loss.backward()
        logits = (logits - 2.0 * logits.grad).detach()
        logits.stop_gradient = False
    p = paddle.nn.functional.softmax(logits)[0]
    assert float((p * paddle.arange(8, dtype="float32")).sum()) == pytest.approx(2.25, abs=0.05)
    assert float(p[2]) == pytest.approx(0.75, abs=0.02)
