"""Batches: pictures of a split, augmented, resized and put together by worker processes."""

from __future__ import annotations

import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from toolkit.data.coco import Annotation, Picture, Split
from toolkit.data.masks import boxes_of, rle_to_crop, segmentation_to_rle
from toolkit.data.preprocess import Prepared, Preprocess, steps_of
from toolkit.data.tiles import Reader, near_each_other, tiles_of
from toolkit.data.transforms import Augmentation
from toolkit.data.workers import Workers
from toolkit.errors import UserError
from toolkit.recipe import Data, Recipe, Tiling

Batch = dict[str, Any]
EvalBatch = list[tuple[Picture, Prepared]]
"""Pictures or tiles of them, and what goes into the network."""
Say = Callable[[str], None]

LEAST_PIXELS = 4
"""Instances of which augmentation and resizing leave fewer pixels of the network input are dropped."""


@dataclass(frozen=True)
class Plan:
    """What makes a training batch; a worker needs no more."""

    pictures: tuple[Picture, ...]
    seeds: tuple[int, ...]
    size: tuple[int, int]
    augmented: bool = True


class TrainBatches:
    """The training batches of a split, in an order and with an augmentation that depend on seed and epoch alone.

    A batch: `image` float32 `[B, 3, h, w]`, `im_shape` and `scale_factor` `[B, 2]`, and in lists, for each picture,
    `gt_class` int64 `[n]`, `gt_bbox` float32 `[n, 4]`, `gt_mask` uint8 `[n, h, w]` and `image_ids`. Crowd regions are
    left out.

    With `tiling` in the recipe a picture here is a tile; an epoch has all tiles with objects, and some others.

    The last batch of an epoch is left out if it is not full, unless it is the only one.

    Args:
        say: takes a line about what goes otherwise than asked; by default it is printed.
        rank, ranks: which of how many processes these are for; each gets an equal part of every batch.

    Raises UserError for a transform of the recipe that does not exist or cannot be made, and for a batch that cannot be
    divided into as many parts as it should.
    """

    def __init__(self, split: Split, recipe: Recipe, *, say: Say | None = None, rank: int = 0, ranks: int = 1) -> None:
        self._data, self._seed, self._batch_size = recipe.data, recipe.train.seed, recipe.train.batch_size
        self._accumulate, self._rank, self._ranks = recipe.train.accumulate, rank, ranks
        self._tiling = recipe.tiling
        self._pictures = tiles_of(split.pictures, recipe.tiling) if recipe.tiling else split.pictures
        self._always, self._others, count = _shares(self._pictures, recipe.tiling)
        self.pictures = len(self._always) + count
        """Pictures, or tiles, of an epoch."""
        self._say, self._unreadable = say or _print, set[str]()
        parts = self._accumulate * ranks
        if self._batch_size % parts or self.pictures < parts:
            raise UserError(
                f"train.batch_size {self._batch_size}: {self.pictures} pictures cannot be trained on in batches "
                f"of {parts} equal parts (train.accumulate {self._accumulate}, {ranks} devices)"
            )
        self._make = _BatchMaker(recipe.data)
        self._workers = Workers(self._make, recipe.data.workers, say=self._say)

    def __len__(self) -> int:
        return max(1, self.pictures // self._batch_size)

    def epoch(self, number: int, *, skip: int = 0) -> Iterator[list[Batch]]:
        """The batches of an epoch, counted from 0, but for the first `skip`, each in `accumulate` parts.

        A picture that can no longer be read is said and left out. Raises UserError if its part has no other, and if
        worker processes die one after the other.
        """
        parts: list[Batch] = []
        for batch in self._workers.map(self._plans(number)[skip * self._accumulate :]):
            for line in batch.pop("unreadable"):
                if line not in self._unreadable:
                    self._unreadable.add(line)
                    self._say(f"{line}; trained without it")
            parts.append(batch)
            if len(parts) == self._accumulate:
                yield parts
                parts = []

    def heaviest(self) -> Batch:
        """A part of a batch, of the pictures with the most objects at the greatest size, as they are in their files.

        Raises UserError for one that cannot be read.
        """
        order = sorted(self._pictures, key=lambda picture: -sum(not a.iscrowd for a in picture.annotations))
        pictures = tuple(order[: self._part_size])
        return self._whole(Plan(pictures, (0,) * len(pictures), self._size(max(self._sides)), augmented=False))

    def typical(self, number: int) -> tuple[Batch, float]:
        """A part of a batch of an ordinary size, and how many times the work of it an average one is.

        Raises UserError for a picture that cannot be read.
        """
        plans = self._plans(0)
        plan = plans[number % len(plans)]
        mean = sum(side**2 for side in self._sides) / len(self._sides)
        side = min(self._sides, key=lambda side: abs(side**2 - mean))
        return self._whole(replace(plan, size=self._size(side))), mean / side**2

    def _rows(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """What an epoch is of, in its order."""
        chosen = self._always
        if count := self.pictures - len(chosen):
            chosen = np.concatenate([chosen, rng.choice(self._others, count, replace=False)])
        order = chosen[rng.permutation(len(chosen))]
        if self._data.class_balanced:
            order = rng.permutation(self._drawn(chosen, rng))
        return near_each_other(self._pictures, order, rng) if self._tiling else order

    def _drawn(self, rows: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """As many of `rows`, by weights (Gupta et al. 2019, arXiv:1908.03195, without a threshold)."""
        classes = [{a.category for a in self._pictures[row].annotations if not a.iscrowd} for row in rows]
        counts = Counter(category for found in classes for category in found)
        weights = [max((counts[c] ** -0.5 for c in found), default=0.0) for found in classes]
        common = max(counts.values(), default=1) ** -0.5
        shares = np.cumsum([weight or common for weight in weights])
        # At equal distances from a random start: each picture comes its share of times, rounded up or down.
        places = (np.arange(len(shares)) + rng.random()) / len(shares) * shares[-1]
        return rows[np.searchsorted(shares, places, side="right").clip(max=len(shares) - 1)]

    @property
    def _part_size(self) -> int:
        return min(self._batch_size, self.pictures) // (self._accumulate * self._ranks)

    @property
    def _sides(self) -> list[int]:
        return self._data.train_sizes or [self._data.input_size[0]]

    def _size(self, side: int) -> tuple[int, int]:
        size = self._data.input_size
        if not self._data.train_sizes:
            return size
        return (side, size[1]) if self._data.keep_ratio else (side, side)

    def _whole(self, plan: Plan) -> Batch:
        batch = self._make(plan)
        for line in batch.pop("unreadable"):
            raise UserError(line)
        return batch

    def close(self) -> None:
        """End the worker processes."""
        self._workers.close()

    def _plans(self, epoch: int) -> list[Plan]:
        rng = np.random.default_rng([self._seed, epoch])
        order = self._rows(rng)
        seeds = rng.integers(0, 2**31, len(order))
        plans = []
        for i in range(len(self)):
            part = slice(i * self._batch_size, (i + 1) * self._batch_size)
            size = self._size(int(rng.choice(self._data.train_sizes)) if self._data.train_sizes else 0)
            divided = [np.array_split(rows[part], self._accumulate * self._ranks) for rows in (order, seeds)]
            plans += [
                Plan(tuple(self._pictures[row] for row in rows), tuple(theirs.tolist()), size)
                for rows, theirs in list(zip(*divided, strict=True))[self._rank :: self._ranks]
            ]
        return plans


class EvalBatches:
    """The pictures of a split in order, or their tiles."""

    def __init__(self, split: Split, recipe: Recipe) -> None:
        size = recipe.evaluate.batch_size
        pictures = tiles_of(split.pictures, recipe.tiling, annotated=False) if recipe.tiling else split.pictures
        self._groups = [pictures[i : i + size] for i in range(0, len(pictures), size)]
        self._read = Reader()
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
        return [(picture, self._preprocess(self._read(picture))) for picture in pictures]


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
        self._read = Reader()

    def __call__(self, plan: Plan) -> Batch:
        preprocess = Preprocess(steps_of(self._data, size=plan.size), origin="recipe")
        batch: Batch = {key: [] for key in ("gt_class", "gt_bbox", "gt_mask", "image_ids", "unreadable")}
        ready = []
        for picture, seed in zip(plan.pictures, plan.seeds, strict=True):
            try:
                rgb = self._read(picture)
            except UserError as error:
                batch["unreadable"].append(str(error))
                if len(batch["unreadable"]) == len(plan.pictures):
                    raise
                continue
            kept = [annotation for annotation in picture.annotations if not annotation.iscrowd]
            stack = _masks_of(picture, kept)
            if plan.augmented:
                rgb, stack = self._augment(rgb, stack, seed=seed)
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


def _shares(pictures: Sequence[Picture], tiling: Tiling | None) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Which pictures every epoch has, of which others it draws, and how many."""
    if tiling is None:
        return np.arange(len(pictures)), np.arange(0), 0
    shows = np.array([any(not a.iscrowd for a in picture.annotations) for picture in pictures], np.bool_)
    always, others = np.flatnonzero(shows), np.flatnonzero(~shows)
    return always, others, min(len(others), round(tiling.empty * len(always)))


def _masks_of(picture: Picture, annotations: Sequence[Annotation]) -> NDArray[np.uint8]:
    """`[n, h, w]`, of the size of the picture or of its window."""
    window = picture.window or (0, 0, picture.width, picture.height)
    x, y = window[:2]
    stack = np.zeros((len(annotations), window[3] - y, window[2] - x), np.uint8)
    for mask, annotation in zip(stack, annotations, strict=True):
        crop = rle_to_crop(segmentation_to_rle(annotation.segmentation, (picture.height, picture.width)), window)
        height, width = crop.mask.shape
        mask[crop.y - y : crop.y - y + height, crop.x - x : crop.x - x + width] = crop.mask
    return stack


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
