"""Batches: pictures of a split, augmented, resized and put together by worker processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from toolkit.data.coco import Picture, Split
from toolkit.data.images import read_rgb
from toolkit.data.masks import segmentation_to_mask
from toolkit.data.preprocess import Preprocess, steps_of
from toolkit.data.transforms import Augmentation, boxes_of
from toolkit.errors import UserError
from toolkit.recipe import Data, Recipe

Batch = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What makes a training batch; a worker needs no more."""

    rows: tuple[int, ...]
    seeds: tuple[int, ...]
    size: tuple[int, int]


class TrainBatches:
    """The training batches of a split, in an order and with an augmentation that depend on seed and epoch alone.

    A batch: `image` float32 `[B, 3, h, w]`, `im_shape` and `scale_factor` `[B, 2]`, and in lists, for each picture,
    `gt_class` int64 `[n]`, `gt_bbox` float32 `[n, 4]`, `gt_mask` uint8 `[n, h, w]` and `image_ids`. Crowd regions are
    left out.

    The last batch of an epoch is left out if it is not full, unless it is the only one.
    """

    def __init__(self, split: Split, recipe: Recipe) -> None:
        self._data, self._seed, self._batch_size = recipe.data, recipe.train.seed, recipe.train.batch_size
        self._maker = _BatchMaker(split.pictures, recipe.data)
        self._count = len(split.pictures)
        self._pool: ProcessPoolExecutor | None = None

    def __len__(self) -> int:
        return max(1, self._count // self._batch_size)

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of an epoch, counted from 0.

        Raises UserError for a picture that cannot be read, and if a worker process dies.
        """
        plans = self._plans(number)
        if self._data.workers == 0:
            yield from map(self._maker, plans)
            return
        self._pool = self._pool or _start(self._maker, self._data.workers)
        try:
            yield from _ahead(plans, self._pool.submit, _make, depth=2 * self._data.workers)
        except BrokenProcessPool:
            self._pool = None
            raise UserError(
                "a process that prepares batches was ended from outside, most often for lack of memory; "
                "lower data.workers or the batch size"
            ) from None

    def close(self) -> None:
        """End the worker processes."""
        if self._pool:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def _plans(self, epoch: int) -> list[Plan]:
        rng = np.random.default_rng([self._seed, epoch])
        order = rng.permutation(self._count)
        seeds = rng.integers(0, 2**31, self._count)
        plans = []
        for i in range(len(self)):
            part = slice(i * self._batch_size, (i + 1) * self._batch_size)
            size = self._data.input_size
            if self._data.train_sizes:
                side = int(rng.choice(self._data.train_sizes))
                size = (side, size[1]) if self._data.keep_ratio else (side, side)
            plans.append(Plan(tuple(order[part].tolist()), tuple(seeds[part].tolist()), size))
        return plans


def eval_batches(split: Split, recipe: Recipe) -> Iterator[Batch]:
    """The pictures of a split in order: `image`, `im_shape`, `scale_factor`, `orig_size` int `[B, 2]`, `image_ids`."""
    preprocess = Preprocess(steps_of(recipe.data), origin="recipe")
    size = recipe.evaluate.batch_size
    groups = [split.pictures[i : i + size] for i in range(0, len(split.pictures), size)]

    def make(pictures: list[Picture]) -> Batch:
        ready = [preprocess(read_rgb(picture.path)) for picture in pictures]
        return {
            "image": _stack([prepared.image for prepared in ready]),
            "im_shape": np.array([prepared.im_shape for prepared in ready], np.float32),
            "scale_factor": np.array([prepared.scale_factor for prepared in ready], np.float32),
            "orig_size": np.array([prepared.size for prepared in ready], np.int64),
            "image_ids": [picture.id for picture in pictures],
        }

    # Decoding and resizing release the lock; the network keeps the processor busy meanwhile.
    with ThreadPoolExecutor(max(1, recipe.data.workers)) as pool:
        yield from _ahead(groups, pool.submit, make, depth=2)


class _BatchMaker:
    """Makes a batch from its plan, always the same one."""

    def __init__(self, pictures: list[Picture], data: Data) -> None:
        self._pictures, self._data = pictures, data
        self._augment = Augmentation(data.train_transforms)

    def __call__(self, plan: Plan) -> Batch:
        preprocess = Preprocess(steps_of(self._data, size=plan.size), origin="recipe")
        batch: Batch = {key: [] for key in ("gt_class", "gt_bbox", "gt_mask", "image_ids")}
        ready = []
        for row, seed in zip(plan.rows, plan.seeds, strict=True):
            picture = self._pictures[row]
            kept = [annotation for annotation in picture.annotations if not annotation.iscrowd]
            shape = (picture.height, picture.width)
            masks = [segmentation_to_mask(annotation.segmentation, shape) for annotation in kept]
            stack = np.stack(masks) if masks else np.zeros((0, *shape), np.uint8)
            rgb, stack = self._augment(read_rgb(picture.path), stack, seed=seed)
            prepared = preprocess(rgb)
            ready.append(prepared)
            stack = _resize_masks(stack, prepared.im_shape, prepared.image.shape[1:])
            boxes = boxes_of(stack)
            seen = boxes[:, 2] > boxes[:, 0]
            batch["gt_class"].append(np.array([annotation.category for annotation in kept], np.int64)[seen])
            batch["gt_bbox"].append(boxes[seen])
            batch["gt_mask"].append(stack[seen])
            batch["image_ids"].append(picture.id)
        images = _stack([prepared.image for prepared in ready])
        batch["gt_mask"] = [_pad_masks(masks, images.shape[2:]) for masks in batch["gt_mask"]]
        return {
            "image": images,
            "im_shape": np.array([prepared.im_shape for prepared in ready], np.float32),
            "scale_factor": np.array([prepared.scale_factor for prepared in ready], np.float32),
            **batch,
        }


def _resize_masks(masks: NDArray[np.uint8], size: tuple[int, int], padded: tuple[int, ...]) -> NDArray[np.uint8]:
    result = np.zeros((len(masks), *padded), np.uint8)
    for target, mask in zip(result, masks, strict=True):
        target[: size[0], : size[1]] = cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST)
    return result


def _pad_masks(masks: NDArray[np.uint8], size: tuple[int, ...]) -> NDArray[np.uint8]:
    if masks.shape[1:] == size:
        return masks
    return np.pad(masks, ((0, 0), (0, size[0] - masks.shape[1]), (0, size[1] - masks.shape[2])))


def _stack(images: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    height, width = (max(image.shape[axis] for image in images) for axis in (1, 2))
    result = np.zeros((len(images), 3, height, width), np.float32)
    for target, image in zip(result, images, strict=True):
        target[:, : image.shape[1], : image.shape[2]] = image
    return result


def _ahead(items: list[Any], submit: Callable[..., Future[Batch]], make: Any, *, depth: int) -> Iterator[Batch]:
    """`make` of each item in order, up to `depth` of them in the making."""
    waiting: deque[Future[Batch]] = deque()
    rest = iter(items)
    try:
        for item in rest:
            waiting.append(submit(make, item))
            if len(waiting) > depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


# Worker processes. They start clean (no fork of a process in which Paddle's threads run), and their batches come back
# through pipes, which need no shared memory: containers often have next to none.

_maker: _BatchMaker


def _start(maker: _BatchMaker, workers: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn" if os.name == "nt" else "forkserver")
    if os.name != "nt":
        context.set_forkserver_preload([__name__])
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(maker,))


def _begin(maker: _BatchMaker) -> None:
    global _maker
    _maker = maker
    # Ctrl-C ends the training, which then ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)


def _make(plan: Plan) -> Batch:
    return _maker(plan)
