"""Several processes that train one model together, each on its part of every batch.

In a single process all of this does nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import paddle
import paddle.distributed as dist
import paddle.nn.functional as F
from paddle import Tensor, nn
from paddle.autograd import PyLayer

from toolkit.quiet import captured


def join() -> None:
    """Meet the other processes, if this one was started as one of several."""
    if count() > 1:
        with captured():
            dist.init_parallel_env()


def rank() -> int:
    """The number of this process, from 0."""
    return int(dist.get_rank())


def count() -> int:
    """How many processes there are."""
    return int(dist.get_world_size())


def average(values: dict[str, float]) -> dict[str, float]:
    """The mean over the processes of each value; all of them have the same names."""
    if count() == 1:
        return values
    together = paddle.to_tensor(list(values.values()), dtype="float64")
    dist.all_reduce(together)
    return dict(zip(values, (together / count()).tolist(), strict=True))


@paddle.no_grad()
def average_gradients(parameters: Sequence[Tensor]) -> None:
    """Give every process the mean of the gradients; a parameter that no process has used keeps none."""
    if count() == 1:
        return
    used = paddle.to_tensor([float(p.grad is not None) for p in parameters])
    dist.all_reduce(used)
    shared = [p for p, uses in zip(parameters, used.tolist(), strict=True) if uses]
    # In one piece: the way there and back costs more than the numbers.
    flat = paddle.concat([_float32(paddle.zeros_like(p) if p.grad is None else p.grad).flatten() for p in shared])
    dist.all_reduce(flat)
    flat = flat / count()
    start = 0
    for parameter in shared:
        part = flat[start : start + parameter.size].reshape(parameter.shape)
        if part.dtype != parameter.dtype:
            part = part.astype(parameter.dtype)
        if parameter.grad is None:
            parameter.grad = part
        else:
            parameter.grad.set_value(part)
        start += parameter.size


@paddle.no_grad()
def share(tensors: Sequence[Tensor]) -> None:
    """Give every process the values of the first."""
    if count() == 1 or not tensors:
        return
    flat = paddle.concat([tensor.flatten() for tensor in tensors])
    dist.broadcast(flat, src=0)
    start = 0
    for tensor in tensors:
        tensor.set_value(flat[start : start + tensor.size].reshape(tensor.shape))
        start += tensor.size


def _float32(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == paddle.float32 else tensor.astype("float32")


def gather(thing: Any) -> list[Any]:
    """What each process has, in their order; plain data only."""
    if count() == 1:
        return [thing]
    things: list[Any] = []
    dist.all_gather_object(things, thing)
    return things


def synchronize_norms(model: nn.Layer) -> None:
    """Let the batch norms that learn take their statistics from the parts of all processes together."""
    if count() == 1:
        return
    for layer in model.sublayers():
        if type(layer) is nn.BatchNorm2D and not layer._use_global_stats:
            layer.__class__ = SyncBatchNorm


class SyncBatchNorm(nn.BatchNorm2D):
    """Batch norm over the batches of all processes, on any device (Paddle's own runs on accelerators only)."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        if x.dtype != paddle.float32:
            # Mean squares need more digits than mixed precision has.
            with paddle.amp.auto_cast(enable=False):
                return self.forward(x.astype("float32")).astype(x.dtype)
        with paddle.no_grad():
            # x: [B, C, h, w]; own: [2 C + 1]
            own_mean = x.mean([0, 2, 3])
            own_variance = (x - own_mean.reshape([1, -1, 1, 1])).square().mean([0, 2, 3])
            own = paddle.concat([own_mean, own_variance, paddle.full([1], x.size / x.shape[1])])
            # Each puts its figures into a row of its own: sums of squares would lose half of the digits.
            rows = F.one_hot(paddle.to_tensor([rank()]), count()).T * own
            dist.all_reduce(rows)
            means, variances, sizes = rows.split([x.shape[1], x.shape[1], 1], axis=1)  # [R, C], [R, C], [R, 1]
            weights = sizes / sizes.sum()
            mean = (weights * means).sum(0)
            variance = (weights * (variances + (means - mean).square())).sum(0)
            for running, now in ((self._mean, mean), (self._variance, variance)):
                running.set_value(self._momentum * running + (1 - self._momentum) * now)
        y: Tensor = _Normalize.apply(x, self.weight, self.bias, mean, variance, sizes.sum(), self._epsilon)
        return y


class _Normalize(PyLayer):
    """Batch norm by the mean and the variance over `size` values a channel, of which `x` has some; so is its gradient
    (Ioffe and Szegedy 2015, arXiv:1502.03167)."""

    @staticmethod
    def forward(
        context: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor,
        variance: Tensor,
        size: Tensor,
        epsilon: float,
    ) -> Tensor:
        context.save_for_backward(x, weight, mean, (variance + epsilon).rsqrt(), size)
        return F.batch_norm(x, mean, variance, weight, bias, training=False, epsilon=epsilon)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale, size = context.saved_tensor()
        normal = (x - mean.reshape([1, -1, 1, 1])) * scale.reshape([1, -1, 1, 1])
        own = paddle.stack([gradient.sum([0, 2, 3]), (gradient * normal).sum([0, 2, 3])])  # [2, C]
        everywhere = own.clone()
        dist.all_reduce(everywhere)
        shift, slope = (everywhere / size).reshape([2, 1, -1, 1, 1]).unbind()
        own_gradient = (gradient - shift - normal * slope) * (weight * scale).reshape([1, -1, 1, 1])
        return own_gradient, own[1], own[0], None, None, None
