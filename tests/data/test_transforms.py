from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.data.masks import boxes_of
from toolkit.data.transforms import Augmentation, Expand, InstanceCrop
from toolkit.errors import UserError

PIPELINE: list[dict[str, Any]] = [
    {"ColorJitter": {"brightness": [1, 1], "contrast": [1, 1], "saturation": [1, 1], "hue": [0, 0], "p": 0.8}},
    {"Expand": {"fill": [0, 0, 0]}},
    {"InstanceCrop": {"p": 0.8}},
    {"HorizontalFlip": {"p": 0.5}},
]


def picture(seed: int, height: int, width: int, objects: int) -> tuple[np.ndarray, np.ndarray]:
    """Objects in the colours 10, 20, ... on black, and their masks."""
    rng = np.random.default_rng(seed)
    image, masks = np.zeros((height, width, 3), np.uint8), np.zeros((objects, height, width), np.uint8)
    for i, mask in enumerate(masks):
        y, x = rng.integers(0, height), rng.integers(0, width)
        region = slice(y, y + rng.integers(1, height)), slice(x, x + rng.integers(1, width))
        masks[:, region[0], region[1]] = 0
        mask[region] = 1
        image[region] = 10 * (i + 1)
    return image, masks


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), height=st.integers(8, 60), width=st.integers(8, 60), objects=st.integers(0, 5))
def test_masks_stay_on_their_objects(seed: int, height: int, width: int, objects: int) -> None:
    image, masks = Augmentation(PIPELINE)(*picture(seed, height, width, objects), seed=seed)
    assert masks.shape == (objects, *image.shape[:2])
    for i, mask in enumerate(masks):
        # The picture is made smaller with smoothing and the mask without, so only the outline may differ.
        off = mask.astype(bool) & (np.abs(image[..., 0].astype(int) - 10 * (i + 1)) > 5)
        outline = mask.astype(bool) & ~_eroded(mask)
        assert not (off & ~outline).any()


def _eroded(mask: np.ndarray) -> np.ndarray:
    padded = np.pad(mask, 1)
    shifts = [padded[y : y + mask.shape[0], x : x + mask.shape[1]] for y in range(3) for x in range(3)]
    return np.logical_and.reduce(shifts)


def test_the_same_seed_gives_the_same_and_another_one_does_not() -> None:
    augment = Augmentation(PIPELINE)
    image, masks = picture(3, 50, 60, 3)
    first, again, other = (augment(image, masks, seed=seed)[0] for seed in (5, 5, 6))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_transforms_of_equal_probability_act_independently() -> None:
    augment = Augmentation([{"VerticalFlip": {"p": 0.5}}, {"HorizontalFlip": {"p": 0.5}}])
    image, mask = np.zeros((8, 8, 3), np.uint8), np.zeros((1, 8, 8), np.uint8)
    mask[0, 0, 0] = 1
    corners = {tuple(np.argwhere(augment(image, mask, seed=seed)[1][0])[0].tolist()) for seed in range(40)}
    assert corners == {(0, 0), (0, 7), (7, 0), (7, 7)}


@pytest.mark.parametrize(
    "entries",
    [
        [{"Affine": {"scale": [0.7, 1.3], "rotate": [-40, 40], "shear": [-10, 10], "p": 1.0}}],
        [{"RandomScale": {"scale_limit": 0.4, "p": 1.0}}, {"InstanceCrop": {}}, {"Transpose": {}}],
        [{"Perspective": {"p": 1.0}}, {"RandomRotate90": {"p": 1.0}}],
        [{"RandomResizedCrop": {"size": [100, 80]}}, {"GaussianBlur": {"blur_limit": 3}}],
        [{"Expand": {"ratio": [1.5, 3.0], "fill": [0, 0, 0], "max_side": 80, "p": 1.0}}, {"InstanceCrop": {}}],
    ],
)
def test_any_geometry_takes_masks_along(entries: list[dict[str, Any]]) -> None:
    augment = Augmentation(entries)
    image, masks = np.zeros((120, 160, 3), np.uint8), np.zeros((2, 120, 160), np.uint8)
    masks[0, 20:80, 16:60] = masks[1, 50:110, 90:150] = 1
    image[masks.any(0)] = 255
    shared = []
    for seed in range(12):
        turned, kept = augment(image, masks, seed=seed)
        bright, masked = turned[..., 0] > 127, kept.any(0)
        shared.append((bright & masked).sum() / max(1, (bright | masked).sum()))
        assert kept.shape == (2, *turned.shape[:2])
    assert np.mean(shared) > 0.93
    assert min(shared) > 0.8


def test_no_transforms_change_nothing() -> None:
    image, masks = picture(3, 50, 60, 3)
    unchanged = Augmentation([])(image, masks, seed=1)
    assert np.array_equal(unchanged[0], image)
    assert np.array_equal(unchanged[1], masks)


def test_expand_keeps_a_large_picture_from_growing() -> None:
    image, masks = picture(0, 90, 100, 1)
    expand = Expand(ratio=(4.0, 4.0), max_side=100, p=1.0)
    result = Augmentation([])  # a compose of one built transform
    result._compose = __import__("albumentations").Compose([expand])
    grown, moved = result(image, masks, seed=0)
    assert grown.shape == (90, 100, 3)
    assert moved.sum() == pytest.approx(masks.sum() / 16, rel=0.3)


def test_a_crop_always_shows_the_centre_of_an_instance() -> None:
    augment = Augmentation([{"InstanceCrop": {"p": 1.0, "scaling": [0.3, 0.5], "overlaps": [0.1]}}])
    image, masks = np.zeros((60, 80, 3), np.uint8), np.zeros((1, 60, 80), np.uint8)
    masks[0, 40:56, 60:76] = 1
    for seed in range(30):
        cropped, kept = augment(image, masks, seed=seed)
        assert cropped.shape[0] * cropped.shape[1] < 0.8 * 60 * 80
        assert kept.sum() >= 0.25 * masks.sum()


def test_boxes_are_tight() -> None:
    masks = np.zeros((2, 20, 30), np.uint8)
    masks[0, 3:7, 5:6] = 1
    assert boxes_of(masks).tolist() == [[5, 3, 6, 7], [0, 0, 0, 0]]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"HorizontalFlop": {}}, r"\[0\]: unknown transform HorizontalFlop; did you mean HorizontalFlip\?"),
        ({"HorizontalFlip": {"chance": 1}}, r"HorizontalFlip: unknown argument chance; it takes p"),
        ({"InstanceCrop": {"scaling": [2, 3]}}, "scaling must be two numbers between 0 and 1"),
        ({"A": {}, "B": {}}, "must have one key"),
        ({"ColorJitter": {"brightness": "much"}}, r"train_transforms\[0\]\.ColorJitter: "),
    ],
)
def test_a_wrong_entry_is_refused_with_its_place(entry: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        Augmentation([entry])
    assert "\n" not in str(caught.value)


def test_own_transforms_check_their_arguments() -> None:
    with pytest.raises(ValueError, match="ratio"):
        Expand(ratio=(0.5, 1.0))
    with pytest.raises(ValueError, match="aspect"):
        InstanceCrop(aspect=(0, 1))
