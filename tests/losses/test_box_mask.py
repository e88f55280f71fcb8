from __future__ import annotations

import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.losses.box_mask import box_mask_loss, inside_box

coordinate = st.floats(-2, 9, width=32)


@settings(deadline=None)
@given(coordinate, coordinate, coordinate, coordinate)
def test_inside_box_equals_the_definition(x1: float, y1: float, x2: float, y2: float) -> None:
    inside = inside_box(paddle.to_tensor([[x1, y1, x2, y2]]), 6, 7)
    expected = [[float(x1 <= x < x2 and y1 <= y < y2) for x in range(7)] for y in range(6)]
    assert inside.tolist() == [expected]


def test_the_mean_entropy_over_the_box() -> None:
    rng = np.random.default_rng(0)
    logits, targets = rng.normal(0, 2, (2, 6, 7)), rng.integers(0, 2, (2, 6, 7))
    boxes = [[1, 2, 5, 4], [0, 0, 7, 6]]
    loss = box_mask_loss(*(paddle.to_tensor(a, dtype="float32") for a in (logits, targets, boxes)))
    p = 1 / (1 + np.exp(-logits))
    entropy = -(targets * np.log(p) + (1 - targets) * np.log(1 - p))
    assert loss.tolist() == pytest.approx([entropy[0, 2:4, 1:5].mean(), entropy[1].mean()], rel=1e-5)


def test_what_is_outside_the_box_has_no_say() -> None:
    logits = paddle.randn([1, 6, 7])
    logits.stop_gradient = False
    box_mask_loss(logits, paddle.ones([1, 6, 7]), paddle.to_tensor([[1.0, 2.0, 5.0, 4.0]])).sum().backward()
    moved = logits.grad[0].numpy() != 0
    assert moved[2:4, 1:5].all()
    assert moved.sum() == 8


@pytest.mark.parametrize("box", [[3, 3, 3, 3], [3.1, 3.1, 3.4, 3.4], [5, 5, 2, 2]])
def test_a_box_without_a_cell_costs_nothing(box: list[float]) -> None:
    logits = paddle.randn([1, 6, 7])
    logits.stop_gradient = False
    loss = box_mask_loss(logits, paddle.ones([1, 6, 7]), paddle.to_tensor([box], dtype="float32"))
    loss.sum().backward()
    assert loss.tolist() == [0]
    assert not logits.grad.numpy().any()


def test_no_masks() -> None:
    assert box_mask_loss(paddle.zeros([0, 6, 7]), paddle.zeros([0, 6, 7]), paddle.zeros([0, 4])).shape == [0]
