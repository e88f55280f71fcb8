from __future__ import annotations

import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from toolkit.nn.nms import select

Floats = NDArray[np.float32]


def by_hand(boxes: Floats, scores: Floats, *, keep: int, threshold: float, iou: float) -> list[tuple[float, int, int]]:
    """Score, label and index of what greedy suppression leaves of one picture; boxes `[A, 4]`, scores `[C, A]`."""
    found = []
    for label, row in enumerate(scores):
        kept: list[int] = []
        for i in np.argsort(-row, kind="stable"):
            if row[i] > threshold and all(overlap(boxes[i], boxes[j]) <= iou for j in kept):
                kept.append(int(i))
        found += [(float(row[i]), label, i) for i in kept]
    return sorted(found, reverse=True)[:keep]


def overlap(a: Floats, b: Floats) -> float:
    sides = (np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])).clip(0)
    union = np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - np.prod(sides)
    return float(np.prod(sides) / union)


def random_input(seed: int, *, pictures: int, classes: int, predictions: int) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 20, (pictures, predictions, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(5, 20, corner.shape)], axis=2).astype(np.float32)
    # A permutation: no two scores are equal, so the order is one.
    count = pictures * classes * predictions
    return boxes, (rng.permutation(count).reshape(pictures, classes, predictions) / count).astype(np.float32)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(1, 3), st.integers(1, 30))
def test_equals_greedy_suppression(seed: int, pictures: int, classes: int, predictions: int) -> None:
    boxes, scores = random_input(seed, pictures=pictures, classes=classes, predictions=predictions)
    options = {"keep": 12, "threshold": 0.3, "iou": 0.4}
    best = select(paddle.to_tensor(boxes), paddle.to_tensor(scores), candidates=1000, **options)
    rows = min(12, classes * predictions)
    assert best.scores.shape == best.labels.shape == best.index.shape == [pictures, rows]
    for i in range(pictures):
        expected = by_hand(boxes[i], scores[i], **options)
        found = zip(best.scores[i].tolist(), best.labels[i].tolist(), best.index[i].tolist(), strict=True)
        kept = [row for row in found if row[0] > 0]
        assert [row[1:] for row in kept] == [row[1:] for row in expected]
        assert [row[0] for row in kept] == pytest.approx([row[0] for row in expected])
        assert best.scores[i].tolist() == sorted(best.scores[i].tolist(), reverse=True)


def test_one_prediction_may_stand_in_two_classes() -> None:
    boxes = paddle.to_tensor([[[0.0, 0.0, 10.0, 10.0]]])
    best = select(boxes, paddle.to_tensor([[[0.9], [0.8]]]), keep=5, threshold=0.1, iou=0.5, candidates=10)
    assert best.labels.tolist() == [[0, 1]]
    assert best.index.tolist() == [[0, 0]]


def test_only_the_best_candidates_of_a_class_take_part() -> None:
    boxes, scores = random_input(0, pictures=1, classes=2, predictions=20)
    far = boxes + np.arange(20, dtype=np.float32).reshape(1, 20, 1) * 100  # nothing overlaps
    best = select(paddle.to_tensor(far), paddle.to_tensor(scores), keep=40, threshold=0.0, iou=0.5, candidates=3)
    for label in range(2):
        chosen = best.scores.numpy()[(best.labels.numpy() == label) & (best.scores.numpy() > 0)]
        np.testing.assert_allclose(chosen, np.sort(scores[0, label])[::-1][:3])


def test_nothing_above_the_threshold() -> None:
    boxes, scores = random_input(0, pictures=2, classes=3, predictions=10)
    best = select(paddle.to_tensor(boxes), paddle.to_tensor(scores), keep=7, threshold=1.0, iou=0.5, candidates=10)
    assert best.scores.shape == [2, 7]
    assert not best.scores.numpy().any()
