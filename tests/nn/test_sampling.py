from __future__ import annotations

from typing import Any

import numpy as np
import paddle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.nn.sampling import Objects, match, sample, sampled, targets_of


def batch(*pictures: list[tuple[int, float, float, float, float]]) -> dict[str, Any]:
    """Class, x1, y1, x2, y2 of the objects of each picture."""
    rows = [np.array(objects, "float32").reshape(-1, 5) for objects in pictures]
    return {
        "gt_class": [paddle.to_tensor(r[:, 0].astype("int64")) for r in rows],
        "gt_bbox": [paddle.to_tensor(r[:, 1:]) for r in rows],
    }


TWO = batch([(2, 0, 0, 10, 10), (1, 20, 20, 40, 40)], [], [(0, 5, 5, 25, 15)])


def test_objects_are_padded_to_the_largest_number() -> None:
    objects = Objects.of(TWO)
    assert objects.present.tolist() == [[True, True], [False, False], [True, False]]
    assert objects.classes.tolist() == [[2, 1], [0, 0], [0, 0]]
    assert objects.boxes[0].tolist() == [[0, 0, 10, 10], [20, 20, 40, 40]]
    assert float(objects.boxes[1].abs().sum()) == 0
    assert [rows[keep].tolist() for rows, keep in zip(objects.rows.numpy(), objects.present.numpy(), strict=True)] == [
        [0, 1],
        [],
        [2],
    ]


def test_without_any_object_there_is_one_empty_row() -> None:
    objects = Objects.of(batch([], []))
    assert objects.boxes.shape == [2, 1, 4]
    assert not objects.present.any()
    found = match(paddle.to_tensor([[[0.0, 0.0, 5.0, 5.0], [0.0, 0.0, 0.0, 0.0]]]), objects)
    assert found.overlap.shape == [2, 2]
    assert float(found.overlap.max()) == 0
    assert not found.closest.any()


@given(st.integers(0, 2**32 - 1))
def test_matches_are_the_largest_overlaps(seed: int) -> None:
    rng = np.random.default_rng(seed)

    def boxes(count: int) -> Any:
        low = rng.integers(0, 20, (count, 2))
        return np.concatenate([low, low + rng.integers(1, 15, (count, 2))], axis=1).astype("float32")

    def overlap(a: Any, b: Any) -> float:
        sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
        shared = float(sides.clip(0).prod())
        return shared / (float((a[2:] - a[:2]).prod()) + float((b[2:] - b[:2]).prod()) - shared)

    counts = rng.integers(0, 4, 2)
    truth = [boxes(n) for n in counts]
    candidates = boxes(12)
    objects = Objects.of(
        {"gt_bbox": [paddle.to_tensor(t) for t in truth], "gt_class": [paddle.ones([n]) for n in counts]}
    )
    found = match(paddle.to_tensor(candidates[None]), objects)
    for i in range(2):
        table = np.array([[overlap(c, t) for c in candidates] for t in truth[i]]).reshape(-1, 12)
        np.testing.assert_allclose(found.overlap[i].numpy(), table.max(0, initial=0), atol=1e-5)
        for j, index in enumerate(found.index[i].tolist()):
            if table.max(0, initial=0)[j] > 0:
                assert table[index, j] == pytest.approx(table[:, j].max(), abs=1e-5)
        best = table.max(1, keepdims=True)
        expected = ((np.abs(table - best) < 1e-6) & (best > 0)).any(0) if len(table) else np.zeros(12, bool)
        assert (found.closest[i].numpy() == expected).all()


@given(st.integers(0, 2**32 - 1), st.sampled_from(["random", "first"]))
def test_a_sample_is_as_large_as_its_candidates_allow(seed: int, how: str) -> None:
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 3, (2, 40)) * (rng.random((2, 1)) > 0.1)  # 0: neither
    positive, negative = kind == 1, kind == 2
    count, most = int(rng.integers(2, 60)), int(rng.integers(1, 12))
    chosen = sample(paddle.to_tensor(positive), paddle.to_tensor(negative), count=count, most_positive=most, how=how)
    for i in range(2):
        index, used, on = (part[i].numpy() for part in chosen)
        positives = min(most, count, positive[i].sum())
        assert on.sum() == positives
        assert used.sum() == min(positives + negative[i].sum(), count)
        assert not (on & ~used).any()
        assert len(set(index[used])) == used.sum()
        assert positive[i][index[on]].all()
        assert negative[i][index[used & ~on]].all()
        assert (np.diff(on.astype(int)) <= 0).all(), "those on objects first"
        assert (np.diff(used.astype(int)) <= 0).all()
        if how == "first":
            assert index[on].tolist() == np.flatnonzero(positive[i])[:positives].tolist()
            assert index[used & ~on].tolist() == np.flatnonzero(negative[i])[: used.sum() - positives].tolist()


def test_random_samples_take_every_candidate_in_turn() -> None:
    paddle.seed(1)
    negative = paddle.ones([1, 30], "bool")
    seen = np.zeros(30)
    for _ in range(300):
        chosen = sample(~negative, negative, count=10, most_positive=5, how="random")
        seen[chosen.index[0].numpy()] += 1
    assert seen.sum() == 3000
    assert seen.min() > 60
    assert seen.max() < 140


def test_targets_name_the_object_and_its_class() -> None:
    boxes = paddle.to_tensor([[[0.0, 0.0, 10.0, 9.0], [20.0, 20.0, 40.0, 31.0], [20.0, 20.0, 40.0, 29.0]]]).tile(
        [3, 1, 1]
    )
    targets = targets_of(boxes, paddle.ones([3, 3], "bool"), Objects.of(TWO), overlap=0.5, num_classes=3)
    assert targets.labels[0].tolist() == [2, 1, 3]
    assert targets.labels[1].tolist() == [3, 3, 3]
    assert targets.rows[0].tolist() == [0, 1, 1]
    assert targets.goals[0, 1].tolist() == [20, 20, 40, 40]
    stricter = targets_of(boxes, paddle.ones([3, 3], "bool"), Objects.of(TWO), overlap=0.6, num_classes=3)
    assert stricter.labels[0].tolist() == [2, 3, 3]


def test_sampled_targets_stay_together_and_leave_out_what_does_not_exist() -> None:
    boxes = paddle.to_tensor([[[0.0, 0.0, 9.0, 10.0], [50.0, 50.0, 60.0, 60.0], [20.0, 20.0, 40.0, 38.0]]]).tile(
        [3, 1, 1]
    )
    exist = paddle.to_tensor([[True, True, True], [False, False, True], [True, False, False]])
    targets = targets_of(boxes, exist, Objects.of(TWO), overlap=0.5, num_classes=3)
    few = sampled(targets, count=3, most_positive=1, num_classes=3, how="first")
    assert few.used.tolist() == [[True, True, False], [True, False, False], [True, False, False]]
    assert few.labels[0, :2].tolist() == [2, 3]
    assert few.boxes[0, :2].tolist() == [[0, 0, 9, 10], [50, 50, 60, 60]]
    assert few.goals[0, 0].tolist() == [0, 0, 10, 10]
    assert few.boxes[1, 0].tolist() == [20, 20, 40, 38]
