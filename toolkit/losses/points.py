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

# N objects, C predictions for each, P points


def sample(maps: Tensor, points: Tensor) -> Tensor:
    """Values `[N, C, P]` of `maps` `[N, C, h, w]` at `points` `[N, P, 2]` (x, y, 0 to 1 over the whole map), bilinear,
    zero outside."""
    return F.grid_sample(maps, 2 * points.unsqueeze(1) - 1, align_corners=False).squeeze(2)


def sample_together(maps: Tensor, points: Tensor) -> Tensor:
    """The same as `sample`, several times faster on a CPU where C is large. The points get no gradient."""
    if not maps.place.is_cpu_place():
        return sample(maps, points.detach())
    values: Tensor = _Sample.apply(maps, points)
    return values


def sample_uncertain(
    logits: Tensor, targets: Tensor, *, count: int, oversampling: float = 3.0, uncertain: float = 0.75
) -> tuple[Tensor, Tensor]:
    """Values of masks `logits` `[N, C, h, w]` and of `targets` `[N, H, W]` at the same points, `[N, C, count]` each.

    Of `oversampling` times `count` random points, those where a mask is nearest to undecided fill the share
    `uncertain`, the rest is random. The random points are drawn for each object, and are common to its C predictions.
    """
    objects, predictions = logits.shape[:2]
    candidates = paddle.rand([objects, int(count * oversampling), 2])
    chosen = int(count * uncertain)
    rest = paddle.rand([objects, count - chosen, 2])
    if predictions == 1:
        doubt = sample(logits.detach(), candidates).abs().squeeze(1)
        picked = paddle.take_along_axis(
            candidates, doubt.topk(chosen, axis=-1, largest=False)[1].unsqueeze(-1), axis=1, broadcast=True
        )
        points = paddle.concat([picked, rest], axis=1)
        return sample(logits, points), sample(targets.unsqueeze(1), points)
    # Sampled once, wherever any prediction may choose: its own choice is picked from these values.
    points = paddle.concat([candidates, rest], axis=1)
    values = sample_together(logits, points)
    truth = sample_together(targets.unsqueeze(1), points).expand_as(values)
    index = _smallest(values.detach()[:, :, : candidates.shape[1]].abs(), chosen)
    common = paddle.arange(candidates.shape[1], points.shape[1]).expand([objects, predictions, -1])
    index = paddle.concat([index, common], axis=-1).flatten(0, 1)
    found, expected = (paddle.index_sample(each.flatten(0, 1), index) for each in (values, truth))
    return found.reshape([objects, predictions, count]), expected.reshape([objects, predictions, count])


def _smallest(values: Tensor, count: int) -> Tensor:
    """Indices `[..., count]` of the smallest of `values` `[..., P]`, in any order."""
    if values.place.is_cpu_place():
        return paddle.to_tensor(np.argpartition(values.numpy(), count - 1, axis=-1)[..., :count])
    return values.topk(count, axis=-1, largest=False)[1]


class _Sample(PyLayer):
    """On a CPU, a product with a sparse matrix: what Paddle's `grid_sample` takes for each map, this does for all maps
    of an object at once."""

    @staticmethod
    def forward(context: Any, maps: Tensor, points: Tensor) -> Tensor:
        _, _, height, width = maps.shape
        weights = [_bilinear(own, height, width) for own in points.numpy()]
        context.weights, context.shape = weights, maps.shape
        columns = np.ascontiguousarray(maps.numpy().reshape(*maps.shape[:2], -1).transpose(0, 2, 1))  # [N, h * w, C]
        values = [weight @ own for weight, own in zip(weights, columns, strict=True)]  # [P, C]
        return paddle.to_tensor(np.stack(values).transpose(0, 2, 1).copy())

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        columns = np.ascontiguousarray(gradient.numpy().transpose(0, 2, 1))  # [N, P, C]
        maps = [weight.T @ own for weight, own in zip(context.weights, columns, strict=True)]  # [h * w, C]
        return paddle.to_tensor(np.stack(maps).transpose(0, 2, 1).copy()).reshape(context.shape), None


def _bilinear(points: NDArray[np.float32], height: int, width: int) -> csr_array:
    """The matrix `[P, height * width]` that makes values at `points` `[P, 2]` of a map."""
    place = points * np.array([width, height], np.float32) - np.float32(0.5)
    corner = np.floor(place)
    share = place - corner
    columns, weights = np.zeros((len(points), 4), np.int32), np.zeros((len(points), 4), np.float32)
    for number, (dx, dy) in enumerate([(0, 0), (1, 0), (0, 1), (1, 1)]):
        x, y = (corner + np.array((dx, dy), np.float32)).T
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        weight = (share[:, 0] if dx else 1 - share[:, 0]) * (share[:, 1] if dy else 1 - share[:, 1])
        columns[:, number] = np.where(inside, y * width + x, 0)
        weights[:, number] = np.where(inside, weight, 0)
    starts = np.arange(0, columns.size + 1, 4, dtype=np.int32)
    return csr_array((weights.ravel(), columns.ravel(), starts), shape=(len(points), height * width))
