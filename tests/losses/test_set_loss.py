from __future__ import annotations

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

from toolkit.losses.focal import varifocal_loss
from toolkit.losses.iou import giou, iou
from toolkit.losses.set_loss import WEIGHTS, Objects, Pairs, Predictions, corners, match, set_losses

SIDE = 32
ONE = paddle.ones([])


def objects() -> Objects:
    """Two objects in the first picture, none in the second, one in the third."""
    masks = np.zeros((3, SIDE, SIDE), "float32")
    boxes = []
    for mask, (x1, y1, x2, y2) in zip(masks, [(2, 2, 14, 18), (18, 6, 30, 30), (8, 8, 24, 20)], strict=True):
        mask[y1:y2, x1:x2] = 1
        boxes.append([(x1 + x2) / 2 / SIDE, (y1 + y2) / 2 / SIDE, (x2 - x1) / SIDE, (y2 - y1) / SIDE])
    return Objects([2, 0, 1], paddle.to_tensor([1, 0, 2]), paddle.to_tensor(boxes), paddle.to_tensor(masks))


def predictions(*, layers: int = 2, queries: int = 5, seed: int = 0) -> tuple[Predictions, paddle.Tensor]:
    paddle.seed(seed)
    shape = [layers, 3, queries]
    said = Predictions(paddle.randn([*shape, 3]), paddle.rand([*shape, 4]) * 0.4 + 0.2, paddle.randn([*shape, 4]))
    return said, paddle.randn([3, 4, SIDE // 2, SIDE // 2])


def perfect() -> tuple[Predictions, paddle.Tensor]:
    """Queries 3, 1 of the first picture and 0 of the third say exactly what is there."""
    said, _ = predictions(layers=1)
    truth = objects()
    logits, boxes, vectors = (part.numpy() for part in said)
    logits[:] = -9
    vectors[:] = 0
    vectors[..., 3] = -1  # the last feature is all ones: no mask
    features = np.zeros((3, 4, SIDE // 2, SIDE // 2), "float32")
    features[:, 3] = 1
    for number, (picture, query) in enumerate([(0, 3), (0, 1), (2, 0)]):
        logits[0, picture, query, truth.classes.numpy()[number]] = 9
        boxes[0, picture, query] = truth.boxes.numpy()[number]
        features[picture, number % 2] = 40 * truth.masks.numpy()[number, ::2, ::2] - 20
        vectors[0, picture, query] = 0
        vectors[0, picture, query, number % 2] = 1
    return Predictions(*(paddle.to_tensor(part) for part in (logits, boxes, vectors))), paddle.to_tensor(features)


def test_perfect_queries_are_found_and_cost_nothing() -> None:
    said, features = perfect()
    pairs = match(said, features, objects(), points=500)
    assert pairs.counts == [2, 0, 1]
    assert pairs.queries.tolist() == [[[1, 3, 0]]]
    assert pairs.objects.tolist() == [[1, 0, 2]]
    losses = set_losses(said, features, objects(), pairs, count=ONE * 3, points=500)
    assert set(losses) == set(WEIGHTS)
    assert losses["bbox"].item() == 0
    assert losses["giou"].item() == pytest.approx(0, abs=1e-5)
    assert losses["class"].item() < 0.02
    assert losses["dice"].item() < 0.6  # of 5; the sampled points crowd at the edges
    wrong = set_losses(
        said, features, objects(), pairs._replace(objects=np.array([[0, 1, 2]])), count=ONE * 3, points=500
    )
    for name, value in losses.items():
        assert wrong[name].item() > value.item() + 0.3, name


def test_losses_by_their_formulas() -> None:
    said, features = predictions(layers=2)
    truth = objects()
    pairs = Pairs([2, 0, 1], np.array([[[4, 0, 2]], [[1, 3, 3]]]), np.array([[0, 1, 2], [1, 0, 2]]))
    losses = set_losses(said, features, truth, pairs, count=ONE * 3, points=2000)
    picture = [0, 0, 2]
    for layer in range(2):
        queries, owned = pairs.queries[layer, 0], pairs.objects[layer]
        box = paddle.stack([said.boxes[layer, p, int(q)] for p, q in zip(picture, queries, strict=True)])
        target = truth.boxes.index_select(paddle.to_tensor(owned))
        assert losses["bbox"][layer].item() == pytest.approx(5 * (box - target).abs().sum().item() / 3, rel=1e-5)
        expected = 2 * (1 - giou(corners(box), corners(target))).sum().item() / 3
        assert losses["giou"][layer].item() == pytest.approx(expected, rel=1e-5)

        logits = paddle.stack(
            [
                (said.masks[layer, p, int(q)].unsqueeze(0) @ features[p].flatten(1)).reshape(features.shape[2:])
                for p, q in zip(picture, queries, strict=True)
            ]
        )
        masks = truth.masks.index_select(paddle.to_tensor(owned))
        if layer == 0:
            quality = iou(corners(box), corners(target))
        else:
            large = F.interpolate(logits.unsqueeze(1), scale_factor=2, mode="bilinear").squeeze(1) > 0
            both = (large & (masks > 0.5)).astype("float32").sum([1, 2])
            quality = both / (large | (masks > 0.5)).astype("float32").sum([1, 2])
        scores = paddle.full(said.logits.shape[1:], -1.0)
        for p, q, o, value in zip(picture, queries, owned, quality, strict=True):
            scores[p, int(q), int(truth.classes[int(o)])] = value
        expected = 4 * varifocal_loss(said.logits[layer], scores).sum().item() / 3
        assert losses["class"][layer].item() == pytest.approx(expected, rel=1e-3)

        # At points drawn evenly the mean over the map is what is expected; most are drawn at the edges.
        everywhere = F.binary_cross_entropy_with_logits(
            F.interpolate(logits.unsqueeze(1), scale_factor=2, mode="bilinear").squeeze(1), masks
        )
        assert 0.5 < losses["mask"][layer].item() / (5 * everywhere.item()) < 1.1


def test_groups_add_up() -> None:
    """The same queries twice, as two groups: the same losses per object, each object counted twice."""
    said, features = predictions(layers=2)
    truth = objects()
    queries = np.array([[[4, 0, 2]], [[1, 3, 3]]])
    owned = np.array([[0, 1, 2], [0, 1, 2]])
    twice = Predictions(*(paddle.concat([part, part], axis=2) for part in said))
    paddle.seed(7)
    once = set_losses(said, features, truth, Pairs([2, 0, 1], queries, owned), count=ONE * 3, points=300)
    both = Pairs([2, 0, 1], np.concatenate([queries, queries + 5], axis=1), owned)
    paddle.seed(7)
    grouped = set_losses(twice, features, truth, both, count=ONE * 6, points=300)
    for name, value in once.items():
        np.testing.assert_allclose(grouped[name].numpy(), value.numpy(), rtol=1e-4, err_msg=name)


def test_without_objects_there_is_nothing_but_classes() -> None:
    said, features = predictions()
    nothing = Objects([0, 0, 0], *(part[:0] for part in objects()[1:]))
    losses = set_losses(said, features, nothing, None, count=ONE, points=100)
    assert {name for name, value in losses.items() if value.abs().sum() > 0} == {"class"}
    expected = 4 * varifocal_loss(said.logits, paddle.full_like(said.logits, -1.0)).sum([1, 2, 3])
    np.testing.assert_allclose(losses["class"].numpy(), expected.numpy(), rtol=1e-5)


def test_fewer_queries_than_objects() -> None:
    said, features = predictions(queries=1)
    pairs = match(said, features, objects(), points=50)
    assert pairs.counts == [1, 0, 1]
    losses = set_losses(said, features, objects(), pairs, count=ONE * 3, points=50)
    assert all(bool(value.isfinite().all()) for value in losses.values())
