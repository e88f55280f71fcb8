"""Masks compared at sampled points instead of everywhere (PointRend, Kirillov et al. 2020, arXiv:1912.08193)."""

from __future__ import annotations

from typing import Any

import numpy as np
import paddle
import paddle.nn.functional as F
from numpy.typing import NDArray
from paddle import Tensor
from paddle.autograd import PyLayer
from scipy.sparse import csr_array

from toolkit.losses.dice import dice, dice_loss

LOWEST = -80.0
"""The exponential of what is below would not be finite."""

# N objects, C predictions for each, P points


def sample(maps: Tensor, points: Tensor) -> Tensor:
    """Values `[N, C, P]` of `maps` `[N, C, h, w]` at `points` `[N, P, 2]` (x, y, 0 to 1 over the whole map), bilinear,
    zero outside."""
    return F.grid_sample(maps, 2 * points.unsqueeze(1) - 1, align_corners=False).squeeze(2)


@paddle.no_grad()
def sample_together(maps: Tensor, points: Tensor) -> Tensor:
    """The same as `sample` without a gradient, several times faster on a CPU where C is large."""
    if not maps.place.is_cpu_place():
        return sample(maps, points)
    return paddle.to_tensor(np.stack([_values(*own)[0] for own in zip(maps.numpy(), points.numpy(), strict=True)]))


def point_losses(
    logits: Tensor, targets: Tensor, *, count: int, oversampling: float = 3.0, uncertain: float = 0.75
) -> tuple[Tensor, Tensor]:
    """Cross entropy and dice loss `[N, C]` of masks `logits` `[N, C, h, w]` against `targets` `[N, H, W]`, at `count`
    points each.

    Of `oversampling` times `count` random points, those where a mask is nearest to undecided fill the share
    `uncertain`, the rest is random. The random points are drawn for each object, and are common to its C predictions.
    """
    objects, predictions = logits.shape[:2]
    chosen = int(count * uncertain)
    candidates = paddle.rand([objects, int(count * oversampling), 2])
    rest = paddle.rand([objects, count - chosen, 2])
    losses = _LossesTogether.apply if predictions > 1 and logits.place.is_cpu_place() else _losses
    of_entropy, of_dice = losses(logits, targets.unsqueeze(1), candidates, rest, chosen)
    return of_entropy, of_dice


def _losses(logits: Tensor, targets: Tensor, candidates: Tensor, rest: Tensor, chosen: int) -> tuple[Tensor, Tensor]:
    """At the points of `rest` and at `chosen` of `candidates`."""
    objects, predictions, *size = logits.shape
    index = sample(logits.detach(), candidates).abs().topk(chosen, axis=-1, largest=False)[1]  # [N, C, chosen]
    picked = paddle.take_along_axis(candidates, index.reshape([objects, -1, 1]), axis=1, broadcast=True)
    common = rest.unsqueeze(1).expand([-1, predictions, -1, -1])
    points = paddle.concat([picked.reshape([objects, predictions, chosen, 2]), common], axis=2)
    values = sample(logits.reshape([-1, 1, *size]), points.flatten(0, 1)).reshape(points.shape[:3])
    truth = sample(targets, points.flatten(1, 2)).reshape(values.shape)
    entropy = F.binary_cross_entropy_with_logits(values, truth, reduction="none").mean(-1)
    return entropy, dice_loss(F.sigmoid(values), truth)


class _LossesTogether(PyLayer):
    """The same, on a CPU several times faster where C is large: all maps of an object are sampled once, wherever any
    of them may choose, by a product with a sparse matrix, and gradients are had by formula."""

    @staticmethod
    def forward(
        context: Any, logits: Tensor, targets: Tensor, candidates: Tensor, rest: Tensor, chosen: int
    ) -> tuple[Tensor, Tensor]:
        points = np.concatenate([candidates.numpy(), rest.numpy()], axis=1)
        context.shape, context.objects = logits.shape, []
        losses = np.empty((2, *logits.shape[:2]), np.float32)
        for loss, maps, target, own in zip(losses.swapaxes(0, 1), logits.numpy(), targets.numpy(), points, strict=True):
            values, weights = _values(maps, own)
            index = _undecided(values, candidates.shape[1], chosen)  # [C, count]
            truth = _values(target, own)[0][0, index % len(own)]
            values = values.reshape(-1)[index]
            entropy, masks = entropy_and_sigmoid(values)
            overlap, total = (masks * truth).sum(-1), masks.sum(-1) + truth.sum(-1)
            loss[0] = (entropy + values * (1 - truth)).mean(-1)
            loss[1] = dice(overlap, total)
            context.objects.append((weights, index, masks, truth, overlap, total))
        return paddle.to_tensor(losses[0]), paddle.to_tensor(losses[1])

    @staticmethod
    def backward(context: Any, of_entropy: Tensor, of_dice: Tensor) -> tuple[Tensor, None, None, None]:
        _, predictions, height, width = context.shape
        maps = []
        for (weights, index, masks, truth, overlap, total), by_entropy, by_dice in zip(
            context.objects, of_entropy.numpy(), of_dice.numpy(), strict=True
        ):
            # Of the sigmoid's own gradient, p (1 - p), cross entropy leaves p - t.
            by_overlap, by_total = -2 * by_dice / (total + 1), by_dice * (2 * overlap + 1) / (total + 1) ** 2
            gradient = by_overlap[:, None] * truth
            gradient += by_total[:, None]
            gradient *= masks * (1 - masks)
            gradient += (by_entropy / index.shape[1])[:, None] * (masks - truth)
            values = np.zeros((predictions, weights.shape[0]), np.float32)
            values.reshape(-1)[index] = gradient
            padded = (weights.T @ np.ascontiguousarray(values.T)).reshape(height + 2, width + 2, predictions)
            maps.append(padded[1:-1, 1:-1].transpose(2, 0, 1))
        return paddle.to_tensor(np.stack(maps)), None, None, None


def entropy_and_sigmoid(logits: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Cross entropy of each logit with 1, and its sigmoid, of one exponential. With 0 the cross entropy is higher by
    the logit."""
    x = np.maximum(logits, LOWEST)
    entropy = x - logits
    np.exp(np.negative(x, out=x), out=x)
    x += 1
    entropy += np.log(x)
    return entropy, np.reciprocal(x, out=x)


def _undecided(values: NDArray[np.float32], candidates: int, chosen: int) -> NDArray[np.int64]:
    """Where in `values` `[C, P]` those are that each row chooses, `[C, count]`: of its first `candidates` the
    `chosen` that are nearest to 0, and all others."""
    doubt = np.abs(values[:, :candidates])
    bound = np.partition(doubt, chosen - 1, axis=-1)[:, chosen - 1 : chosen]
    keep = np.ones(values.shape, bool)
    keep[:, :candidates] = doubt <= bound
    # Where several are as near, and where a network has diverged.
    for row in np.flatnonzero(keep[:, :candidates].sum(-1) != chosen):
        keep[row, :candidates] = False
        keep[row, np.argpartition(doubt[row], chosen - 1)[:chosen]] = True
    return np.flatnonzero(keep).reshape(len(values), -1)


def _values(maps: NDArray[np.float32], points: NDArray[np.float32]) -> tuple[NDArray[np.float32], csr_array]:
    """Values `[C, P]` of `maps` `[C, h, w]` at `points` `[P, 2]`, and the matrix `[P, (h + 2) * (w + 2)]` that makes
    them of maps with a border of zeros."""
    count, height, width = maps.shape
    padded = np.zeros((height + 2, width + 2, count), np.float32)
    padded[1:-1, 1:-1] = maps.transpose(1, 2, 0)
    weights = _bilinear(points, height, width)
    return np.ascontiguousarray((weights @ padded.reshape(-1, count)).T), weights


def _bilinear(points: NDArray[np.float32], height: int, width: int) -> csr_array:
    sides = np.array([[width], [height]], np.float32)
    place = np.clip(points.T * sides - np.float32(0.5), -1, np.nextafter(sides, 0))  # Beyond, nothing changes.
    low = np.floor(place)
    (x, y), (column, row) = place - low, low + 1  # Counted from the border.
    corner = (row * (width + 2) + column).astype(np.int32)
    columns = corner[:, None] + np.array([0, 1, width + 2, width + 3], np.int32)
    weights = np.stack([(1 - y) * (1 - x), (1 - y) * x, y * (1 - x), y * x], axis=1)
    starts = np.arange(0, columns.size + 1, 4, dtype=np.int32)
    return csr_array((weights.ravel(), columns.ravel(), starts), shape=(len(points), (height + 2) * (width + 2)))
