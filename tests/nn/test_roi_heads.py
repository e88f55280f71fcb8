from __future__ import annotations

from typing import Any

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from paddle.vision.ops import roi_align

from toolkit.nn.boxes import encode
from toolkit.nn.roi_heads import (
    MaskHead,
    at_least_one,
    box_losses,
    cut_masks,
    detect,
    in_order,
    region_features,
    rows,
)
from toolkit.nn.sampling import Targets

STRIDES = (4, 8, 16, 32)
WEIGHTS = (10.0, 10.0, 5.0, 5.0)


def pyramid(side: int = 512) -> list[paddle.Tensor]:
    paddle.seed(0)
    return [paddle.randn([2, 3, side // stride, side // stride]) for stride in STRIDES]


def regions(seed: int, count: int, *, side: float = 512) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    sides = np.exp(rng.uniform(np.log(4), np.log(side), (2, count, 2)))
    low = rng.uniform(0, np.maximum(side - sides, 1e-3))
    return np.concatenate([low, np.minimum(low + sides, side)], axis=2).astype("float32")


@pytest.mark.parametrize("seed", range(4))
def test_regions_are_cut_out_of_the_level_that_suits_their_size(seed: int) -> None:
    levels, boxes = pyramid(), regions(seed, 9)
    used = np.random.default_rng(seed).random((2, 9)) > 0.3
    features, index = region_features(
        levels, paddle.to_tensor(boxes), paddle.to_tensor(used), strides=STRIDES, resolution=5
    )
    assert index.tolist() == np.flatnonzero(used).tolist()
    for feature, row in zip(features.numpy(), index.tolist(), strict=True):
        picture, box = row // 9, boxes[row // 9, row % 9]
        # Lin et al. 2017, equation 1: 224 pixels belong to the third level.
        size = np.sqrt((box[2] - box[0]) * (box[3] - box[1]))
        level = int(np.clip(np.floor(2 + np.log2(size / 224 + 1e-8)), 0, 3))
        alone = roi_align(
            levels[level][picture : picture + 1],
            paddle.to_tensor(box[None]),
            paddle.ones([1], "int32"),
            5,
            1 / STRIDES[level],
            aligned=False,
        )
        np.testing.assert_allclose(feature, alone[0].numpy(), atol=1e-5)


def test_rows_come_back_in_order() -> None:
    x = paddle.arange(12, dtype="float32").reshape([2, 3, 2])
    index = paddle.to_tensor([4, 0, 5, 2, 1, 3])
    assert (in_order(rows(x, index), index, paddle.zeros([2, 3, 4])) == x).all()


def test_at_least_one_is_used() -> None:
    assert at_least_one(paddle.zeros([2, 3], "bool")).tolist() == [[True, False, False], [False] * 3]
    used = paddle.to_tensor([[True, False], [False, True]])
    assert (at_least_one(used) == used).all()


@pytest.mark.parametrize("agnostic", [False, True])
def test_box_losses_follow_the_definition(agnostic: bool) -> None:
    rng = np.random.default_rng(0)
    boxes, goals = (paddle.to_tensor(regions(seed, 4)) for seed in (1, 2))
    labels = np.array([[0, 2, 3, 1], [3, 3, 1, 0]])  # 3: background
    used = paddle.ones([2, 4], "bool")
    targets = Targets(boxes, used, paddle.to_tensor(labels), paddle.zeros([2, 4], "int64"), goals)
    index = paddle.to_tensor([6, 0, 2, 3, 5])
    logits = rng.normal(size=(5, 4)).astype("float32")
    deltas = rng.normal(size=(5, 4 if agnostic else 12)).astype("float32")
    classes, distance = box_losses(paddle.to_tensor(logits), paddle.to_tensor(deltas), targets, index, weights=WEIGHTS)
    wanted = encode(goals.flatten(0, 1), boxes.flatten(0, 1), weights=WEIGHTS).numpy()
    expected = [0.0, 0.0]
    for row, (place, logit, delta) in enumerate(zip(index.tolist(), logits, deltas, strict=True)):
        label = labels.flat[place]
        expected[0] += np.log(np.exp(logit).sum()) - logit[label]
        if label < 3:
            own = delta if agnostic else delta.reshape(3, 4)[label]
            expected[1] += np.abs(own - wanted[place]).sum()
        assert row < 5
    assert float(classes) == pytest.approx(expected[0] / 5, rel=1e-4)
    assert float(distance) == pytest.approx(expected[1] / 5, rel=1e-4)


def test_detections_are_decoded_cut_and_thinned_out() -> None:
    boxes = paddle.to_tensor([[[10.0, 10, 30, 40], [11.0, 10, 31, 40], [60.0, 50, 90, 90], [5.0, 5, 9, 9]]])
    scores = paddle.to_tensor([[[0.9, 0.0], [0.8, 0.7], [0.0, 0.6], [0.01, 0.04]]])
    deltas = paddle.zeros([1, 4, 8])
    deltas[0, 2, 4:] = paddle.to_tensor([10.0, 0.0, 0.0, 0.0])  # One width to the right, for class 1.
    found, score, label = detect(scores, deltas, boxes, paddle.to_tensor([[80.0, 100.0]]), weights=WEIGHTS)
    used = score[0] > 0
    np.testing.assert_allclose(score[0][used].numpy(), [0.9, 0.7, 0.6], atol=1e-6)
    assert label[0][used].tolist() == [0, 1, 1]
    np.testing.assert_allclose(
        found[0][used].numpy(), [[10, 10, 30, 40], [11, 10, 31, 40], [90, 50, 100, 80]], atol=1e-3
    )
    assert float(found[0][~used].abs().sum()) == 0


def mask_head(**overrides: Any) -> MaskHead:
    paddle.seed(0)
    return MaskHead(**{"in_channels": 3, "num_classes": 4, "convs": 2, "channels": 5, "strides": STRIDES, **overrides})


def test_masks_are_those_of_the_regions_own_class() -> None:
    head = mask_head()
    x, labels = paddle.randn([6, 3, 14, 14]), paddle.to_tensor([3, 0, 1, 1, 2, 3])
    every = head.mask_fcn_logits(head.head.upsample(x))
    own = paddle.stack([every[i, label] for i, label in enumerate(labels.tolist())])
    np.testing.assert_allclose(head(x, labels).numpy(), own.numpy(), atol=1e-5)


def targets(boxes: Any, labels: Any, used: Any, objects: Any) -> Targets:
    boxes = paddle.to_tensor(boxes, "float32")
    return Targets(boxes, paddle.to_tensor(used), paddle.to_tensor(labels), paddle.to_tensor(objects), boxes)


def test_only_regions_on_objects_learn_a_mask() -> None:
    head, levels = mask_head(), pyramid(64)
    bitmaps = [paddle.zeros([1, 64, 64], "uint8"), paddle.ones([1, 64, 64], "uint8")]
    boxes = [[[4, 4, 30, 40], [2, 2, 20, 20]], [[8, 8, 50, 60], [1, 1, 9, 9]]]
    chosen = targets(boxes, [[1, 4], [2, 0]], [[True, True], [True, False]], [[0, 0], [1, 1]])
    loss = head.loss(levels, chosen, bitmaps, shared=None)
    expected = 0.0
    for picture, label, goal in ((0, 1, 0.0), (1, 2, 1.0)):
        box = paddle.to_tensor([boxes[picture][0]], "float32")
        x = roi_align(levels[0][picture : picture + 1], box, paddle.ones([1], "int32"), 14, 1 / 4, aligned=False)
        logits = head(x, paddle.to_tensor([label]))
        expected += float(F.binary_cross_entropy_with_logits(logits, paddle.full_like(logits, goal))) / 2
    assert float(loss) == pytest.approx(expected, rel=1e-4)


def test_without_objects_the_loss_is_zero_and_so_are_its_gradients() -> None:
    head, levels = mask_head(), pyramid(64)
    empty = [paddle.zeros([0, 64, 64], "uint8")] * 2
    chosen = targets([[[4, 4, 30, 40]]] * 2, [[4], [4]], [[True], [True]], [[0], [0]])
    loss = head.loss(levels, chosen, empty, shared=None)
    loss.backward()
    assert float(loss) == 0
    assert all(float(parameter.grad.abs().max()) == 0 for parameter in head.parameters())


def test_features_that_are_there_already_are_not_cut_out_again() -> None:
    head = mask_head(convs=0)
    features, index = paddle.randn([3, 3, 7, 7]), paddle.to_tensor([3, 0, 2])
    bitmaps = [paddle.ones([1, 64, 64], "uint8")] * 2
    chosen = targets(
        [[[4, 4, 30, 40], [0, 0, 9, 9]]] * 2, [[1, 4], [2, 0]], [[True, True], [True, True]], [[0, 0], [1, 1]]
    )
    loss = head.loss([], chosen, bitmaps, shared=(features, index))
    logits = head(features, paddle.to_tensor([0, 1, 2]))
    assert float(loss) == pytest.approx(
        float(F.binary_cross_entropy_with_logits(logits, paddle.ones_like(logits))), rel=1e-5
    )


def test_predicted_masks_have_an_empty_cell_around_them() -> None:
    head, levels = mask_head(), pyramid(64)
    boxes = paddle.to_tensor(regions(3, 4, side=64))
    used = paddle.to_tensor([[True, True, False, False], [True, False, False, False]])
    labels = paddle.to_tensor([[0, 1, 2, 3], [3, 0, 0, 0]])
    masks = head.predict(levels, boxes, used, labels, through=None)
    assert masks.shape == [2, 4, 30, 30]
    assert (masks[~used] == -0.5).all()
    for edge in (masks[:, :, 0], masks[:, :, -1], masks[..., 0], masks[..., -1]):
        assert (edge == -0.5).all()
    x = roi_align(levels[0][1:], boxes[1, :1], paddle.ones([1], "int32"), 14, 1 / 4, aligned=False)
    expected = F.sigmoid(head(x, paddle.to_tensor([3])))[0] - 0.5
    np.testing.assert_allclose(masks[1, 0, 1:-1, 1:-1].numpy(), expected.numpy(), atol=1e-5)


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_cut_masks_follow_the_shape(seed: int) -> None:
    """Of an ellipse, whose part in each cell is known."""
    rng = np.random.default_rng(seed)
    ys, xs = np.mgrid[:80, :100] + 0.5
    (cx, cy), (rx, ry) = rng.uniform(30, 60, 2), rng.uniform(10, 28, 2)
    bitmap = ((xs - cx) ** 2 / rx**2 + (ys - cy) ** 2 / ry**2 <= 1).astype("uint8")
    x1, y1 = rng.uniform(0, 40, 2)
    x2, y2 = x1 + rng.uniform(20, 60), y1 + rng.uniform(20, 40)
    bitmaps = [paddle.zeros([1, 80, 100], "uint8"), paddle.to_tensor(bitmap[None])]
    box = paddle.to_tensor([[x1, y1, x2, y2]], "float32")
    cut = cut_masks(bitmaps, box, paddle.to_tensor([1]), side=28)[0].numpy()
    steps = (np.arange(28) + 0.5) / 28
    grid_x, grid_y = np.meshgrid(x1 + steps * (x2 - x1), y1 + steps * (y2 - y1))
    truth = (grid_x - cx) ** 2 / rx**2 + (grid_y - cy) ** 2 / ry**2 <= 1
    assert set(np.unique(cut)) <= {0.0, 1.0}
    assert (cut != truth).mean() < 0.05
    assert float(cut_masks(bitmaps, box, paddle.to_tensor([0]), side=28).abs().max()) == 0


def test_one_pixel_is_cut_out_whole() -> None:
    bitmap = np.zeros((1, 20, 20), np.uint8)
    bitmap[0, 7, 11] = 1
    whole = cut_masks([paddle.to_tensor(bitmap)], paddle.to_tensor([[11.0, 7, 12, 8]]), paddle.to_tensor([0]), side=14)
    assert float(whole.mean()) > 0.4
    beside = cut_masks([paddle.to_tensor(bitmap)], paddle.to_tensor([[13.0, 7, 14, 8]]), paddle.to_tensor([0]), side=14)
    assert float(beside.mean()) == 0


def test_without_bitmaps_nothing_is_set() -> None:
    empty = [paddle.zeros([0, 8, 8], "uint8")] * 2
    assert float(cut_masks(empty, paddle.to_tensor([[0.0, 0, 4, 4]]), paddle.to_tensor([0]), side=14).abs().max()) == 0
