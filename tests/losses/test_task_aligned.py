from __future__ import annotations

from typing import Any

import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.losses.task_aligned import assign


def overlap(a: Any, b: Any) -> float:
    sides = (np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])).clip(0)
    shared = np.prod(sides)
    return float(shared / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared + 1e-9))


def by_hand(scores: Any, boxes: Any, points: Any, classes: Any, objects: Any, *, candidates: int) -> list[Any]:
    """(owner, quality) of each prediction of one picture, (None, 0) where it has none; objects by object in loops."""
    ious = np.array([[overlap(g, b) for b in boxes] for g in objects])
    alignment = np.array([[scores[a, c] * ious[i, a] ** 6 for a in range(len(boxes))] for i, c in enumerate(classes)])
    wants: list[list[int]] = [[] for _ in boxes]
    for i, (x1, y1, x2, y2) in enumerate(objects):
        inside = [x1 < x < x2 and y1 < y < y2 for x, y in points]
        order = np.argsort(-alignment[i] * inside, kind="stable")[:candidates]
        for a in order:
            if inside[a]:
                wants[a].append(i)
    owners = [None if not w else w[0] if len(w) == 1 else int(ious[:, a].argmax()) for a, w in enumerate(wants)]
    result: list[Any] = []
    for a, owner in enumerate(owners):
        if owner is None:
            result.append((None, 0.0))
            continue
        own = [b for b, o in enumerate(owners) if o == owner]
        scale = max(ious[owner, own]) / (max(alignment[owner, own]) + 1e-9)
        result.append((owner, alignment[owner, a] * scale))
    return result


def grid(side: int, stride: int) -> Any:
    centres = (np.arange(side // stride) + 0.5) * stride
    return np.stack(np.meshgrid(centres, centres), axis=-1).reshape(-1, 2).astype("float32")


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.integers(0, 4), min_size=1, max_size=3))
def test_equals_the_definition(seed: int, counts: list[int]) -> None:
    rng = np.random.default_rng(seed)
    points = grid(32, 4)
    pictures, n = len(counts), max(*counts, 1)
    reach = rng.uniform(2, 14, (pictures, len(points), 4))
    boxes = np.concatenate([points - reach[..., :2], points + reach[..., 2:]], -1).astype("float32")
    scores = rng.uniform(0.05, 1, (pictures, len(points), 3)).astype("float32")
    corner = rng.uniform(0, 20, (pictures, n, 2))
    objects = np.concatenate([corner, corner + rng.uniform(4, 20, corner.shape)], -1).astype("float32")
    classes = rng.integers(0, 3, (pictures, n))
    exists = np.arange(n) < np.array(counts)[:, None]
    given_ = assign(*(paddle.to_tensor(a) for a in (scores, boxes, points, classes, objects, exists)), candidates=5)
    for b, count in enumerate(counts):
        if count == 0:
            assert not given_.positive[b].numpy().any()
            assert not given_.quality[b].numpy().any()
            continue
        expected = by_hand(scores[b], boxes[b], points, classes[b, :count], objects[b, :count], candidates=5)
        assert given_.positive[b].tolist() == [owner is not None for owner, _ in expected]
        for a, (owner, quality) in enumerate(expected):
            if owner is not None:
                assert int(given_.owner[b, a]) == owner
            assert float(given_.quality[b, a]) == pytest.approx(quality, rel=1e-3, abs=1e-4)


def one_object(box: list[float], *, candidates: int = 13) -> Any:
    points = grid(32, 4)
    boxes = np.concatenate([points - 6, points + 6], -1).astype("float32")
    return assign(
        paddle.full([1, len(points), 1], 0.5),
        paddle.to_tensor(boxes[None]),
        paddle.to_tensor(points),
        paddle.zeros([1, 1], "int64"),
        paddle.to_tensor([[box]], dtype="float32"),
        paddle.ones([1, 1], "bool"),
        candidates=candidates,
    )


def test_at_most_so_many_candidates() -> None:
    assert int(one_object([0, 0, 32, 32]).positive.sum()) == 13
    assert int(one_object([0, 0, 32, 32], candidates=4).positive.sum()) == 4


def test_the_best_prediction_is_to_score_its_iou() -> None:
    given_ = one_object([8, 8, 20, 20])  # the cell at (14, 14) predicts exactly this
    assert float(given_.quality.max()) == pytest.approx(1.0, abs=1e-4)
    assert int(given_.quality.argmax()) == 3 * 8 + 3


def test_centres_outside_and_on_the_edge_are_not_taken() -> None:
    assert int(one_object([10, 10, 14, 14]).positive.sum()) == 0  # four centres, all on its border
    assert int(one_object([9, 9, 11, 11]).positive.sum()) == 1
    assert int(one_object([12, 12, 12, 12]).positive.sum()) == 0
