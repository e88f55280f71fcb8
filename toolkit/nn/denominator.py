"""What sums of losses are divided by, where several processes train together."""

from __future__ import annotations

import paddle
from paddle import Tensor


def over_processes(count: Tensor, *, plus: float = 0.0) -> Tensor:
    """`count` summed over the processes, with `plus` added and at least 1, in equal shares.

    A loss divided by it has, as its mean over the processes, the value that one process would find for all the data.
    """
    processes = paddle.distributed.get_world_size()
    total = count.detach().astype("float32")
    if processes > 1:
        paddle.distributed.all_reduce(total)
    return (total + plus).clip(min=1.0) / processes
