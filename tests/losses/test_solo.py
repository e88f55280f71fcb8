from __future__ import annotations

import math

import cv2
import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from toolkit.losses.solo import Cells, assign, cell_classes, shrink, solo_losses

GRIDS = (10, 8, 6)
RANGES = ((1, 24), (12, 48), (24, 96))
SIZE = (64, 96)
CELLS = Cells.of(grids=GRIDS, scale_ranges=RANGES)
TOTAL = sum(g * g for g in GRIDS)


def rectangle(x1: int, y1: int, x2: int, y2: int) -> NDArray[np.uint8]:
    mask = np.zeros(SIZE, np.uint8)
    mask[y1:y2, x1:x2] = 1
    return mask


def claimed_cells(box: tuple[int, int, int, int], mask: NDArray[np.uint8], sigma: float) -> set[tuple[int, int, int]]:
    """(grid, row, column) of an object's cells, one after the other, from the paper's words."""
    if not mask.any():
        return set()
    rows, columns = np.nonzero(mask)
    centre = rows.mean(), columns.mean()
    sides = box[3] - box[1], box[2] - box[0]
    found = set()
    for number, (grid, (least, most)) in enumerate(zip(GRIDS, RANGES, strict=True)):
        if not least <= math.sqrt(sides[0] * sides[1]) <= most:
            continue
        spans = []
        for middle, side, length in zip(centre, sides, SIZE, strict=True):
            cell = math.floor(middle / length * grid)
            low = math.floor((middle - sigma * side / 2) / length * grid)
            high = math.floor((middle + sigma * side / 2) / length * grid)
            spans.append(range(max(0, low, cell - 1), min(grid - 1, high, cell + 1) + 1))
        found |= {(number, row, column) for row in spans[0] for column in spans[1]}
    return found


def numbers(cells: set[tuple[int, int, int]]) -> set[int]:
    starts = np.concatenate([[0], np.cumsum(np.square(GRIDS))])
    return {int(starts[grid]) + row * GRIDS[grid] + column for grid, row, column in cells}


@st.composite
def boxes(draw: st.DrawFn) -> tuple[int, int, int, int]:
    x1, y1 = draw(st.integers(0, SIZE[1] - 1)), draw(st.integers(0, SIZE[0] - 1))
    return x1, y1, draw(st.integers(x1 + 1, SIZE[1])), draw(st.integers(y1 + 1, SIZE[0]))


@settings(max_examples=60, deadline=None)
@given(st.lists(boxes(), max_size=4), st.sampled_from([0.2, 0.9]))
def test_assignment_follows_the_definition(objects: list[tuple[int, int, int, int]], sigma: float) -> None:
    masks = np.array([rectangle(*box) for box in objects], np.uint8).reshape(-1, *SIZE)
    claims = assign(
        boxes=paddle.to_tensor(np.array(objects, "float32").reshape(-1, 4)),
        masks=paddle.to_tensor(masks),
        cells=CELLS,
        sigma=sigma,
    ).numpy()
    assert claims.shape == (len(objects), TOTAL)
    for claim, box, mask in zip(claims, objects, masks, strict=True):
        assert set(np.flatnonzero(claim).tolist()) == numbers(claimed_cells(box, mask, sigma))


def test_an_empty_mask_claims_nothing() -> None:
    claims = assign(
        boxes=paddle.to_tensor([[10.0, 10.0, 30.0, 30.0]]),
        masks=paddle.zeros([1, *SIZE], "uint8"),
        cells=CELLS,
        sigma=0.2,
    )
    assert not claims.any()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 6))
def test_shrinking_equals_opencv(seed: int, rows: int, columns: int) -> None:
    masks = (np.random.default_rng(seed).random((2, 4 * rows, 4 * columns)) > 0.5).astype(np.uint8)
    expected = [cv2.resize(mask, (columns, rows), interpolation=cv2.INTER_LINEAR) for mask in masks]
    assert (shrink(paddle.to_tensor(masks)).numpy() == np.array(expected)).all()


def test_a_cell_takes_the_class_of_its_last_claim() -> None:
    claims = paddle.to_tensor([[True, True, False], [False, True, False]])
    assert cell_classes(claims, paddle.to_tensor([4, 0]), background=7).tolist() == [4, 0, 7]


def test_perfect_predictions_cost_nothing() -> None:
    mask = rectangle(8, 8, 32, 40)
    objects = {
        "classes": [paddle.to_tensor([1])],
        "boxes": [paddle.to_tensor([[8.0, 8.0, 32.0, 40.0]])],
        "masks": [paddle.to_tensor(mask[None])],
    }
    claims = assign(boxes=objects["boxes"][0], masks=objects["masks"][0], cells=CELLS, sigma=0.2)
    claimed = claims.any(axis=0).astype("float32").unsqueeze(1)
    logits = paddle.concat([-paddle.ones_like(claimed), 2 * claimed - 1], axis=1) * 20
    losses = solo_losses(
        cate_logits=logits.unsqueeze(0),
        kernels=paddle.ones([1, TOTAL, 1]),
        mask_features=(shrink(objects["masks"][0]) * 2 - 1).unsqueeze(0) * 20,
        cells=CELLS,
        **objects,
    )
    assert float(losses["loss_ins"]) == pytest.approx(0, abs=1e-4)
    assert float(losses["loss_cate"]) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("counts", [(0,), (0, 0), (1, 0), (0, 2)])
def test_pictures_without_objects_leave_finite_gradients(counts: tuple[int, ...]) -> None:
    paddle.seed(0)
    batch = len(counts)
    inputs = [
        paddle.randn([batch, TOTAL, 3]),
        paddle.randn([batch, TOTAL, 8]),
        paddle.randn([batch, 8, SIZE[0] // 4, SIZE[1] // 4]),
    ]
    for tensor in inputs:
        tensor.stop_gradient = False
    box = (10, 10, 40, 40)
    losses = solo_losses(
        cate_logits=inputs[0],
        kernels=inputs[1],
        mask_features=inputs[2],
        classes=[paddle.ones([n], "int64") for n in counts],
        boxes=[paddle.to_tensor(np.array([box] * n, "float32").reshape(-1, 4)) for n in counts],
        masks=[paddle.to_tensor(np.array([rectangle(*box)] * n, np.uint8).reshape(-1, *SIZE)) for n in counts],
        cells=CELLS,
    )
    (losses["loss_ins"] + losses["loss_cate"]).backward()
    for tensor in inputs:
        assert np.isfinite(tensor.grad.numpy()).all()
    assert (float(losses["loss_ins"]) > 0) == any(counts)
    assert (float(inputs[1].grad.abs().sum()) > 0) == any(counts)
