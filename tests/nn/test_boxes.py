from __future__ import annotations

import numpy as np
import paddle
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from toolkit.nn.boxes import LARGEST, clip, decode, encode

WEIGHTS = [(1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0), (30.0, 30.0, 15.0, 15.0)]


def boxes(rng: np.random.Generator, count: int, *, least: float = 1.0) -> NDArray[np.float32]:
    low = rng.uniform(-50, 500, (count, 2))
    return np.concatenate([low, low + rng.uniform(least, 300, (count, 2))], axis=1).astype("float32")


@given(st.integers(0, 2**32 - 1), st.sampled_from(WEIGHTS))
def test_decoding_reverses_encoding(seed: int, weights: tuple[float, ...]) -> None:
    rng = np.random.default_rng(seed)
    # A box grows at most 62-fold.
    start, goal = (paddle.to_tensor(boxes(rng, 16, least=5.0)) for _ in range(2))
    deltas = encode(goal, start, weights=weights)
    np.testing.assert_allclose(decode(deltas, start, weights=weights).numpy(), goal.numpy(), atol=0.02)


@given(st.integers(0, 2**32 - 1))
def test_encoding_follows_the_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    (x1, y1, x2, y2), (u1, v1, u2, v2) = boxes(rng, 1)[0], boxes(rng, 1)[0]
    expected = [
        10 * ((u1 + u2) - (x1 + x2)) / 2 / (x2 - x1),
        20 * ((v1 + v2) - (y1 + y2)) / 2 / (y2 - y1),
        3 * np.log((u2 - u1) / (x2 - x1)),
        4 * np.log((v2 - v1) / (y2 - y1)),
    ]
    found = encode(paddle.to_tensor([[u1, v1, u2, v2]]), paddle.to_tensor([[x1, y1, x2, y2]]), weights=(10, 20, 3, 4))
    np.testing.assert_allclose(found[0].numpy(), expected, rtol=1e-3, atol=1e-3)


@given(st.integers(0, 2**32 - 1), st.floats(0.25, 4), st.floats(-200, 200))
def test_changes_do_not_depend_on_scale_and_place(seed: int, scale: float, shift: float) -> None:
    rng = np.random.default_rng(seed)
    start, goal = (paddle.to_tensor(boxes(rng, 8, least=8.0)) for _ in range(2))
    near = encode(goal, start, weights=WEIGHTS[0])
    far = encode(goal * scale + shift, start * scale + shift, weights=WEIGHTS[0])
    np.testing.assert_allclose(near.numpy(), far.numpy(), rtol=1e-2, atol=1e-3)


@given(st.integers(0, 2**32 - 1))
def test_no_change_leaves_a_box_where_it_is(seed: int) -> None:
    start = paddle.to_tensor(boxes(np.random.default_rng(seed), 8))
    np.testing.assert_allclose(
        decode(paddle.zeros([8, 4]), start, weights=WEIGHTS[1]).numpy(), start.numpy(), atol=1e-3
    )


def test_a_box_grows_only_so_far() -> None:
    (grown,) = decode(paddle.full([1, 4], 1e4), paddle.to_tensor([[0.0, 0.0, 16.0, 32.0]]), weights=WEIGHTS[0]).numpy()
    assert grown[2] - grown[0] == pytest.approx(16 * np.exp(LARGEST), rel=1e-3)
    assert grown[3] - grown[1] == pytest.approx(32 * np.exp(LARGEST), rel=1e-3)


@pytest.mark.parametrize("box", [[5.0, 5.0, 5.0, 5.0], [5.0, 5.0, 5.0, 9.0], [9.0, 9.0, 5.0, 5.0]])
def test_boxes_without_area_give_finite_changes(box: list[float]) -> None:
    plain = paddle.to_tensor([[2.0, 3.0, 12.0, 14.0]])
    for goal, start in ((plain, paddle.to_tensor([box])), (paddle.to_tensor([box]), plain)):
        deltas = encode(goal, start, weights=WEIGHTS[2])
        assert paddle.isfinite(deltas).all()
        assert paddle.isfinite(decode(deltas, start, weights=WEIGHTS[2])).all()


@given(st.integers(0, 2**32 - 1))
def test_boxes_are_cut_at_their_own_picture(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = rng.uniform(50, 300, (3, 2)).astype("float32")
    before = np.stack([boxes(rng, 6) for _ in range(3)])
    after = clip(paddle.to_tensor(before), paddle.to_tensor(size)).numpy()
    for i, (height, width) in enumerate(size):
        np.testing.assert_array_equal(after[i], before[i].clip(0, [width, height, width, height]))
