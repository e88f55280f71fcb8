"""Pictures of a dataset with their masks, and beside each what a recipe's augmentation makes of it for the network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from toolkit.data.coco import Picture, Split
from toolkit.data.convert import reading
from toolkit.data.draw import draw_instances, font_for
from toolkit.data.folder import new_folder
from toolkit.data.images import read_rgb
from toolkit.data.masks import boxes_of, segmentation_to_mask
from toolkit.errors import UserError
from toolkit.recipe import Data, Recipe, load_recipe, parse_settings

HEIGHT = 640
"""Pixels of a drawn picture, without its title."""
_BAR, _GAP = 34, 12
_INK, _PAPER = (30, 30, 30), (255, 255, 255)

Rgb = NDArray[np.uint8]


def inspect_dataset(
    source: Path,
    out: Path,
    *,
    recipe: str | None = None,
    settings: Sequence[str] = (),
    count: int = 8,
    part: str | None = None,
    seed: int = 0,
) -> None:
    """Write `count` pictures of the dataset at `source`, with masks, boxes and classes, into the new folder `out`.

    Args:
        recipe: name of a model or path of a recipe; the right half then is what training with it makes of the picture.
        settings: changes to the recipe, `KEY=VALUE`.
        part: train, val or test; by default the first there is.
        seed: of the choice of pictures, and of the augmentation.

    Raises UserError.
    """
    if settings and recipe is None:
        raise UserError("--set: changes a recipe; name one with --recipe")
    chosen = load_recipe(recipe, parse_settings(settings)) if recipe else None
    with new_folder(out) as folder, reading(source) as parts:
        names = [one.name for one in parts]
        if part is not None and part not in names:
            raise UserError(f"--part {part}: {source} has {', '.join(names)}")
        split = parts[names.index(part) if part else 0]
        sheets = _with_recipe(split, chosen, recipe or "", seed) if chosen else _without_recipe(split, seed)
        for number, (picture, sheet) in enumerate(islice(sheets, count), 1):
            stem = Path(picture.file_name).stem
            Image.fromarray(sheet).save(folder / f"{number:03d}_{stem}.jpg", quality=92)
    print(f"{min(count, len(split.pictures))} pictures of {split.name} drawn into {out}")


def _without_recipe(split: Split, seed: int) -> Iterator[tuple[Picture, Rgb]]:
    for index in np.random.default_rng(seed).permutation(len(split.pictures)):
        picture = split.pictures[index]
        yield picture, _annotated(picture, split.classes)


def _with_recipe(split: Split, recipe: Recipe, name: str, seed: int) -> Iterator[tuple[Picture, Rgb]]:
    """The pictures as training meets them in its first epoch, one to a batch."""
    from toolkit.data.loader import TrainBatches  # Needs the extra for training; drawing alone does not.

    one = recipe.model_copy(
        update={
            "train": recipe.train.model_copy(update={"batch_size": 1, "accumulate": 1, "seed": seed}),
            "data": recipe.data.model_copy(update={"workers": 0}),
        }
    )
    pictures = {picture.id: picture for picture in split.pictures}
    for [batch] in TrainBatches(split, one).epoch(0):
        picture = pictures[batch["image_ids"][0]]
        rgb = _denormalized(batch["image"][0], recipe.data)
        labels, masks = batch["gt_class"][0], batch["gt_mask"][0]
        title = f"after: what {Path(name).stem} trains on, {rgb.shape[1]} x {rgb.shape[0]}"
        after = _drawn(rgb, list(masks), labels.tolist(), [split.classes[i] for i in labels], title)
        yield picture, _beside(_annotated(picture, split.classes, "before: "), after)


def _annotated(picture: Picture, classes: Sequence[str], prefix: str = "") -> Rgb:
    size = (picture.height, picture.width)
    masks = (segmentation_to_mask(a.segmentation, size) for a in picture.annotations)  # one by one: some are large
    texts = [classes[a.category] + " (crowd)" * a.iscrowd for a in picture.annotations]
    title = f"{prefix}{picture.file_name}, {picture.width} x {picture.height}"
    return _drawn(read_rgb(picture.path), masks, [a.category for a in picture.annotations], texts, title)


def _drawn(rgb: Rgb, masks: Iterable[Rgb], categories: Sequence[int], texts: Sequence[str], title: str) -> Rgb:
    """The picture at a height at which labels can be read, under its title."""
    width = max(1, round(rgb.shape[1] * HEIGHT / rgb.shape[0]))
    shrinks = rgb.shape[0] > HEIGHT
    rgb = cv2.resize(rgb, (width, HEIGHT), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    resized = [cv2.resize(mask, (width, HEIGHT), interpolation=cv2.INTER_NEAREST_EXACT) for mask in masks]
    stack = np.stack(resized) if resized else np.zeros((0, HEIGHT, width), np.uint8)
    boxes = [(x1, y1, x2, y2) for x1, y1, x2, y2 in boxes_of(stack).astype(int).tolist()]
    cut = [mask[y1:y2, x1:x2] for mask, (x1, y1, x2, y2) in zip(stack, boxes, strict=True)]
    drawn = draw_instances(rgb, boxes=boxes, masks=cut, labels=texts, classes=categories)
    sheet = Image.new("RGB", (width, HEIGHT + _BAR), _PAPER)
    sheet.paste(Image.fromarray(drawn), (0, _BAR))
    font = font_for(title, 18)
    ImageDraw.Draw(sheet).text((4, _BAR // 2), title, font=font, fill=_INK, anchor="lm")
    return np.asarray(sheet)


def _denormalized(image: NDArray[np.float32], data: Data) -> Rgb:
    """Undo what preprocessing does to the network input `[3, h, w]`."""
    pixels = image.transpose(1, 2, 0) * np.asarray(data.std) + np.asarray(data.mean)
    return np.ascontiguousarray((pixels * 255).round().clip(0, 255).astype(np.uint8))


def _beside(left: Rgb, right: Rgb) -> Rgb:
    gap = np.full((left.shape[0], _GAP, 3), _PAPER, np.uint8)
    return np.concatenate([left, gap, right], axis=1)
