"""Batches: pictures of a split, augmented, resized and put together by worker processes."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from toolkit.data.coco import Picture, Split
from toolkit.data.images import read_rgb
from toolkit.data.masks import segmentation_to_mask
from toolkit.data.preprocess import Prepared, Preprocess, steps_of
from toolkit.data.transforms import Augmentation, boxes_of
from toolkit.data.workers import Workers
from toolkit.recipe import Data, Recipe

Batch = dict[str, Any]
EvalBatch = list[tuple[int, Prepared]]
"""Ids of pictures, and the pictures."""
Say = Callable[[str], None]

LEAST_PIXELS = 4
"""Instances of which augmentation and resizing leave fewer pixels of the network input are dropped."""


@dataclass(frozen=True)
class Plan:
    """What makes a training batch; a worker needs no more."""

    pictures: tuple[Picture, ...]
    seeds: tuple[int, ...]
    size: tuple[int, int]


class TrainBatches:
    """The training batches of a split, in an order and with an augmentation that depend on seed and epoch alone.

    A batch: `image` float32 `[B, 3, h, w]`, `im_shape` and `scale_factor` `[B, 2]`, and in lists, for each picture,
    `gt_class` int64 `[n]`, `gt_bbox` float32 `[n, 4]`, `gt_mask` uint8 `[n, h, w]` and `image_ids`. Crowd regions are
    left out.

    The last batch of an epoch is left out if it is not full, unless it is the only one.

    Args:
        say: takes a line about what goes otherwise than asked; by default it is printed.

    Raises UserError for a transform of the recipe that does not exist or cannot be made.
    """

    def __init__(self, split: Split, recipe: Recipe, *, say: Say | None = None) -> None:
        self._data, self._seed, self._batch_size = recipe.data, recipe.train.seed, recipe.train.batch_size
        self._pictures = split.pictures
        self._workers = Workers(_BatchMaker(recipe.data), recipe.data.workers, say=say or _print)

    def __len__(self) -> int:
        return max(1, len(self._pictures) // self._batch_size)

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of an epoch, counted from 0.

        Raises UserError for a picture that cannot be read, and if a worker process dies.
        """
        return self._workers.map(self._plans(number))

    def close(self) -> None:
        """End the worker processes."""
        self._workers.close()

    def _plans(self, epoch: int) -> list[Plan]:
        rng = np.random.default_rng([self._seed, epoch])
        order = rng.permutation(len(self._pictures))
        seeds = rng.integers(0, 2**31, len(self._pictures))
        plans = []
        for i in range(len(self)):
            part = slice(i * self._batch_size, (i + 1) * self._batch_size)
            size = self._data.input_size
            if self._data.train_sizes:
                side = int(rng.choice(self._data.train_sizes))
                size = (side, size[1]) if self._data.keep_ratio else (side, side)
            plans.append(Plan(tuple(self._pictures[row] for row in order[part]), tuple(seeds[part].tolist()), size))
        return plans


class EvalBatches:
    """The pictures of a split in order."""

    def __init__(self, split: Split, recipe: Recipe) -> None:
        size = recipe.evaluate.batch_size
        self._groups = [split.pictures[i : i + size] for i in range(0, len(split.pictures), size)]
        self._preprocess = Preprocess(steps_of(recipe.data), origin="recipe")
        self._threads = max(1, recipe.data.workers)

    def __len__(self) -> int:
        return len(self._groups)

    def __iter__(self) -> Iterator[EvalBatch]:
        # Decoding and resizing release the lock; the network keeps the processor busy meanwhile.
        with ThreadPoolExecutor(self._threads) as pool:
            waiting: deque[Future[EvalBatch]] = deque()
            for group in self._groups:
                waiting.append(pool.submit(self._make, group))
                if len(waiting) > self._threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def _make(self, pictures: list[Picture]) -> EvalBatch:
        return [(picture.id, self._preprocess(read_rgb(picture.path))) for picture in pictures]


def eval_batches(split: Split, recipe: Recipe) -> EvalBatches:
    """The batches that a model is evaluated on.

    Raises UserError, while it is iterated over, for a picture that cannot be read.
    """
    return EvalBatches(split, recipe)


class _BatchMaker:
    """Makes a batch from its plan, always the same one."""

    def __init__(self, data: Data) -> None:
        self._data = data
        self._augment = Augmentation(data.train_transforms)

    def __call__(self, plan: Plan) -> Batch:
        preprocess = Preprocess(steps_of(self._data, size=plan.size), origin="recipe")
        batch: Batch = {key: [] for key in ("gt_class", "gt_bbox", "gt_mask", "image_ids")}
        ready = []
        for picture, seed in zip(plan.pictures, plan.seeds, strict=True):
            kept = [annotation for annotation in picture.annotations if not annotation.iscrowd]
            shape = (picture.height, picture.width)
            masks = [segmentation_to_mask(annotation.segmentation, shape) for annotation in kept]
            stack = np.stack(masks) if masks else np.zeros((0, *shape), np.uint8)
            rgb, stack = self._augment(read_rgb(picture.path), stack, seed=seed)
            prepared = preprocess(rgb)
            ready.append(prepared)
            stack = _resize_masks(stack, prepared.im_shape, prepared.image.shape[1:])
            seen = np.array([cv2.countNonZero(mask) >= LEAST_PIXELS for mask in stack], np.bool_)
            batch["gt_class"].append(np.array([annotation.category for annotation in kept], np.int64)[seen])
            batch["gt_bbox"].append(boxes_of(stack[seen]))
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
        # By the centres of pixels: plain INTER_NEAREST moves a mask by up to half a pixel against its picture.
        target[: size[0], : size[1]] = cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
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


def _print(line: str) -> None:
    print(line, file=sys.stderr)
