from __future__ import annotations

from typing import Any

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

from toolkit.losses.iou import pairwise_iou
from toolkit.nn.rpn import OVERLAP, RPN
from toolkit.nn.sampling import Objects

STRIDES = (4, 8, 16)
SIZES = ((16,), (32,), (64,))
SIDE = 64


def network(**overrides: Any) -> RPN:
    paddle.seed(0)
    rpn = RPN(**{"in_channels": 6, "strides": STRIDES, "sizes": SIZES, **overrides})
    for parameter in rpn.parameters():
        parameter.set_value(paddle.randn(parameter.shape) * 0.3)
    return rpn


def features(seed: int = 0, *, pictures: int = 2) -> list[paddle.Tensor]:
    paddle.seed(seed)
    return [paddle.randn([pictures, 6, SIDE // stride, SIDE // stride]) for stride in STRIDES]


def objects(*pictures: list[list[float]]) -> Objects:
    rows = [np.array(boxes, "float32").reshape(-1, 4) for boxes in pictures]
    return Objects.of(
        {"gt_bbox": [paddle.to_tensor(r) for r in rows], "gt_class": [paddle.zeros([len(r)], "int64") for r in rows]}
    )


WHOLE = paddle.full([2, 2], float(SIDE))


def test_anchors_lie_around_the_corners_of_their_cells() -> None:
    rpn = network(strides=(16,), sizes=((32, 64),))
    (anchors,) = rpn._anchors([paddle.zeros([1, 6, 2, 3])])
    grid = anchors.numpy().reshape(2, 3, 6, 4)
    centres, sides = (grid[..., :2] + grid[..., 2:]) / 2, grid[..., 2:] - grid[..., :2]
    np.testing.assert_allclose(centres[1, 2], np.tile([32.0, 16.0], (6, 1)), atol=1e-4)
    np.testing.assert_allclose(sides.prod(-1)[0, 0], [32**2] * 3 + [64**2] * 3, rtol=1e-5)
    np.testing.assert_allclose(sides[0, 0, :, 1] / sides[0, 0, :, 0], [0.5, 1, 2] * 2, rtol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_proposals_are_those_of_the_operator_for_one_level(seed: int) -> None:
    """Paddle's `generate_proposals`, which takes one level of one picture and cannot be exported."""
    rpn, levels = network(), features(seed)
    boxes, scores = rpn(levels, WHOLE, candidates=100, keep=60)
    for picture in range(2):
        found = []
        for x, anchors in zip(levels, rpn._anchors(levels), strict=True):
            hidden = F.relu(rpn.rpn_feat.rpn_conv(x[picture : picture + 1]))
            anchors = anchors.reshape([*x.shape[2:], 3, 4])
            rois, roi_scores, _ = paddle.vision.ops.generate_proposals(
                F.sigmoid(rpn.rpn_rois_score(hidden)),
                rpn.rpn_rois_delta(hidden),
                WHOLE[:1],
                anchors,
                paddle.ones_like(anchors),
                pre_nms_top_n=100,
                post_nms_top_n=100,
                nms_thresh=OVERLAP,
                min_size=0.0,
                return_rois_num=True,
            )
            found.append(paddle.concat([roi_scores, rois], axis=1).numpy())
        expected = np.concatenate(found)
        expected = expected[np.argsort(-expected[:, 0], kind="stable")][:60]
        used = int((scores[picture] > 0).sum())
        assert used == len(expected)
        np.testing.assert_allclose(scores[picture, :used].numpy(), expected[:, 0], atol=1e-5)
        np.testing.assert_allclose(boxes[picture, :used].numpy(), expected[:, 1:], atol=1e-2)


def test_proposals_stay_inside_their_own_picture_and_apart() -> None:
    sizes = paddle.to_tensor([[64.0, 40.0], [30.0, 64.0]])
    boxes, scores = network()(features(), sizes, candidates=200, keep=300)
    for picture, (height, width) in enumerate(sizes.tolist()):
        used = boxes[picture][scores[picture] > 0]
        assert len(used) > 10
        assert float(used.min()) >= 0
        assert float(used[:, [0, 2]].max()) <= width
        assert float(used[:, [1, 3]].max()) <= height
        assert float((used[:, 2:] - used[:, :2]).min()) >= 1
    one = network(strides=(4,), sizes=((16,),))
    boxes, scores = one(features()[:1], WHOLE, candidates=200, keep=300)
    used = boxes[0][scores[0] > 0]
    overlaps = pairwise_iou(used, used) - paddle.eye(len(used))
    assert float(overlaps.max()) <= OVERLAP + 1e-5


def test_a_picture_too_small_for_a_proposal_has_none() -> None:
    _, scores = network()(features(), paddle.to_tensor([[0.5, 0.5], [64.0, 64.0]]), candidates=50, keep=20)
    assert float(scores[0].max()) == 0
    assert float(scores[1].min()) > 0


def test_losses_look_at_the_same_predictions_as_the_proposals() -> None:
    rpn, levels = network(), features()
    dense = [F.relu(rpn.rpn_feat.rpn_conv(x)) for x in levels]
    logits = paddle.concat([rpn.rpn_rois_score(x).transpose([0, 2, 3, 1]).flatten(1) for x in dense], axis=1)
    deltas = paddle.concat([rpn.rpn_rois_delta(x).transpose([0, 2, 3, 1]).reshape([2, -1, 4]) for x in dense], axis=1)
    index = paddle.stack([paddle.randperm(logits.shape[1]) for _ in range(2)])
    some_logits, some_deltas = rpn._at(levels, index)
    for picture in range(2):
        order = index[picture].numpy()
        np.testing.assert_allclose(some_logits[picture].numpy(), logits[picture].numpy()[order], atol=1e-4)
        np.testing.assert_allclose(some_deltas[picture].numpy(), deltas[picture].numpy()[order], atol=1e-4)


def test_losses_follow_the_definition() -> None:
    rpn, levels = network(sampling="first"), features()
    truth = objects([[10, 10, 42, 40]], [])
    anchors = paddle.concat(rpn._anchors(levels)).numpy()
    losses = rpn.losses(levels, truth)
    count = len(anchors)
    logits, deltas = rpn._at(levels, paddle.arange(count).expand([2, count]))
    logits, deltas = logits.numpy().astype("float64"), deltas.numpy().astype("float64")
    overlap = pairwise_iou(truth.boxes[0, :1], paddle.to_tensor(anchors))[0].numpy()
    wrong = distance = 0.0
    for picture in range(2):
        on = (overlap >= 0.7) | (overlap == overlap.max()) if picture == 0 else np.zeros(count, bool)
        off = ~on & (overlap < 0.3) if picture == 0 else np.ones(count, bool)
        off &= np.cumsum(off) <= 256 - on.sum()
        assert picture == 1 or 0 < on.sum() < 128
        wrong += np.logaddexp(0, -logits[picture][on]).sum() + np.logaddexp(0, logits[picture][off]).sum()
        for row in np.flatnonzero(on):
            x1, y1, x2, y2 = anchors[row].astype("float64")
            width, height = x2 - x1, y2 - y1
            goal = [
                (26 - (x1 + x2) / 2) / width,
                (25 - (y1 + y2) / 2) / height,
                np.log(32 / width),
                np.log(30 / height),
            ]
            distance += np.abs(deltas[picture, row] - goal).sum()
    assert float(losses["loss_rpn_cls"]) == pytest.approx(wrong / 512, rel=1e-4)
    assert float(losses["loss_rpn_reg"]) == pytest.approx(distance / 512, rel=1e-4)


def test_every_object_has_an_anchor_even_if_it_suits_none() -> None:
    rpn, levels = network(), features()
    for box in ([20.0, 20.0, 21.0, 21.0], [0.0, 30.0, 64.0, 32.0]):
        assert float(rpn.losses(levels, objects([box], []))["loss_rpn_reg"]) > 0
    assert float(rpn.losses(levels, objects([], []))["loss_rpn_reg"]) == 0


def test_proposals_do_not_teach_and_losses_do() -> None:
    rpn, levels = network(), features()
    for level in levels:
        level.stop_gradient = False
    boxes, scores = rpn(levels, WHOLE, candidates=50, keep=20)
    assert boxes.stop_gradient
    assert scores.stop_gradient
    sum(rpn.losses(levels, objects([[10, 10, 42, 40]], [[0, 0, 8, 8]])).values()).backward()
    for parameter in rpn.parameters():
        assert float(parameter.grad.abs().max()) > 0
    assert all(float(level.grad.abs().max()) > 0 for level in levels)
