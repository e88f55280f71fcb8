from __future__ import annotations

import math

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as codec

from toolkit.data.masks import (
    Crop,
    MaskError,
    crop_to_rle,
    full,
    mask_to_polygons,
    mask_to_rle,
    parse_polygons,
    parse_rle,
    paste,
    polygons_to_mask,
    rle_area,
    rle_box,
    rle_to_crop,
    rle_to_mask,
    segmentation_to_mask,
    segmentation_to_rle,
)

bitmaps = st.tuples(st.integers(1, 13), st.integers(1, 13)).flatmap(
    lambda size: arrays(np.uint8, size, elements=st.integers(0, 1))
)


@st.composite
def crops(draw: st.DrawFn) -> tuple[Crop, tuple[int, int]]:
    mask = draw(bitmaps)
    y, x, below, beside = (draw(st.integers(0, 4)) for _ in range(4))
    return Crop(mask, x, y), (y + mask.shape[0] + below, x + mask.shape[1] + beside)


# Run-length codes


@given(bitmaps)
def test_rle_is_the_one_of_pycocotools_and_comes_back(mask):
    rle = mask_to_rle(mask)
    assert rle["counts"].encode() == codec.encode(np.asfortranarray(mask))["counts"]
    assert rle["size"] == list(mask.shape)
    np.testing.assert_array_equal(rle_to_mask(rle), mask)
    assert rle_area(rle) == mask.sum()
    assert list(rle_box(rle)) == [*codec.toBbox(rle)[:2], *(codec.toBbox(rle)[:2] + codec.toBbox(rle)[2:])]
    assert parse_rle(rle, mask.shape) == rle


@given(crops())
@example((Crop(np.ones((3, 2), np.uint8), 1, 0), (3, 4)))
@example((Crop(np.zeros((0, 0), np.uint8), 0, 0), (3, 4)))
def test_rle_of_a_crop_is_that_of_the_whole_mask(case):
    crop, size = case
    whole = full(crop, size)
    assert whole.shape == size
    assert crop_to_rle(crop, size) == mask_to_rle(whole)


@given(bitmaps, st.data())
def test_the_part_of_a_code_inside_a_window_is_that_of_the_bitmap(mask, data):
    height, width = mask.shape
    x1, x2 = sorted(data.draw(st.tuples(st.integers(0, width), st.integers(0, width))))
    y1, y2 = sorted(data.draw(st.tuples(st.integers(0, height), st.integers(0, height))))
    part = np.zeros_like(mask)
    part[y1:y2, x1:x2] = mask[y1:y2, x1:x2] != 0
    crop = rle_to_crop(mask_to_rle(mask), (x1, y1, x2, y2))
    np.testing.assert_array_equal(full(crop, mask.shape), part)
    left, top, right, bottom = crop.extent
    assert not crop.mask.size or (x1 <= left <= right <= x2 and y1 <= top <= bottom <= y2)
    np.testing.assert_array_equal(full(rle_to_crop(mask_to_rle(mask)), mask.shape), mask != 0)


@given(bitmaps, st.data())
def test_uncompressed_counts_are_read_with_empty_runs_anywhere(mask, data):
    flat = mask.ravel(order="F").tolist()
    counts, bit = [], 0
    while flat:
        if data.draw(st.booleans()):
            counts += [0, 0]
        run = next((i for i, value in enumerate(flat) if value != bit), len(flat))
        counts.append(run)
        flat, bit = flat[run:], 1 - bit
    rle = parse_rle({"size": list(mask.shape), "counts": counts}, mask.shape)
    assert rle == mask_to_rle(mask)


def test_numbers_of_up_to_32_bits_survive():
    size = (50_000, 80_000)
    counts = [1, 3_000_000_000, 7, 999_999_992]
    rle = parse_rle({"size": list(size), "counts": counts}, size)
    assert rle_area(rle) == 3_999_999_992
    assert parse_rle(rle, size) == rle


@pytest.mark.parametrize(
    ("rle", "rule"),
    [
        ("text", "keys size and counts"),
        ({"size": [2, 3]}, "keys size and counts"),
        ({"counts": [6]}, "size None"),
        ({"size": [3, 2], "counts": [6]}, r"size \[3, 2\] is not"),
        ({"size": 6, "counts": [6]}, "size 6 is not"),
        ({"size": [2, 3], "counts": [5]}, "sum to 5, not to height x width = 6"),
        ({"size": [2, 3], "counts": [2, 5]}, "sum to 7"),
        ({"size": [2, 3], "counts": [2, -1, 5]}, "negative"),
        ({"size": [2, 3], "counts": [2, 4.0]}, "list of integers"),
        ({"size": [2, 3], "counts": [True, 5]}, "list of integers"),
        ({"size": [2, 3], "counts": [2**70]}, "list of integers"),
        ({"size": [2, 3], "counts": None}, "list of integers"),
        ({"size": [2, 3], "counts": []}, "sum to 0"),
        ({"size": [2, 3], "counts": ""}, "sum to 0"),
        ({"size": [2, 3], "counts": "6 "}, "character"),
        ({"size": [2, 3], "counts": "é"}, "character"),
        ({"size": [2, 3], "counts": "P"}, "middle of a number"),
        ({"size": [2, 3], "counts": "PPPPPPPPPPPPPP1"}, "beyond 32 bits"),
        ({"size": [2, 3], "counts": "O"}, "negative"),
        ({"size": [2, 3], "counts": b"7"}, "sum to 7"),
    ],
)
def test_malformed_rle_is_refused_by_its_rule(rle, rule):
    with pytest.raises(MaskError, match=rule):
        parse_rle(rle, (2, 3))


@given(bitmaps, st.data())
def test_a_damaged_code_is_refused_or_is_a_whole_mask(mask, data):
    counts = list(mask_to_rle(mask)["counts"])
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(counts)))
        counts[place : place + data.draw(st.integers(0, 2))] = data.draw(
            st.text(st.characters(codec="ascii"), max_size=3)
        )
    text = "".join(counts)
    try:
        rle = parse_rle({"size": list(mask.shape), "counts": text}, mask.shape)
    except MaskError:
        return
    decoded = rle_to_mask(rle)
    assert decoded.shape == mask.shape
    np.testing.assert_array_equal(decoded, codec.decode(rle))


# Polygons


def test_polygons_are_drawn_as_pycocotools_draws_them():
    rng = np.random.default_rng(0)
    for _ in range(20):
        height, width = rng.integers(5, 60, 2)
        polygons = [(rng.uniform(-0.2, 1.2, (5, 2)) * (width, height)).ravel() for _ in range(2)]
        expected = codec.decode(codec.merge(codec.frPyObjects([p.tolist() for p in polygons], height, width)))
        np.testing.assert_array_equal(polygons_to_mask(polygons, (height, width)), expected)
        np.testing.assert_array_equal(segmentation_to_mask(polygons, (height, width)), expected)


def test_parts_that_enclose_nothing_are_left_out():
    square = [1, 1, 5, 1, 5, 5, 1, 5]
    assert [p.tolist() for p in parse_polygons([[], [1, 2], [1, 2, 3, 4], square], (8, 8))] == [square]
    assert parse_polygons([], (8, 8)) == []
    assert not rle_to_mask(segmentation_to_rle([], (8, 9))).any()


@pytest.mark.parametrize(
    ("polygons", "rule"),
    [
        (None, "list of polygons or an RLE"),
        ("1 2 3", "list of polygons or an RLE"),
        ([1, 1, 5, 1, 5, 5], "polygon 0 must be a flat list"),
        ([[1, 1, 5, 1, 5, 5], ["a", 1, 5, 1, 5, 5]], "polygon 1 must be a flat list"),
        ([[1, 1, None, 1, 5, 5]], "flat list of numbers"),
        ([[True, False, True, True, False, False]], "flat list of numbers"),
        ([[[1, 1], [5, 1], [5, 5]]], "flat list of numbers"),
        ([[[1, 1], [5, 1], 5]], "flat list of numbers"),
        ([[1, 1, 5, 1, 5, 5, 2]], r"odd number of coordinates \(7\)"),
        ([[1, 1, 5, 1, 5, math.nan]], "far outside"),
        ([[1, 1, 5, 1, 5, math.inf]], "far outside"),
        ([[1, 1, 5, 1, 5, 1e9]], "far outside the picture of 8 x 8"),
        ([[-9, 1, 5, 1, 5, 5]], "far outside"),
    ],
)
def test_malformed_polygons_are_refused_by_their_rule(polygons, rule):
    with pytest.raises(MaskError, match=rule):
        parse_polygons(polygons, (8, 8))


@given(bitmaps)
def test_outlines_cover_exactly_the_pixels_once_holes_are_filled(mask):
    polygons = mask_to_polygons(mask)
    if not mask.any():
        assert polygons == []
        return
    drawn = polygons_to_mask(polygons, mask.shape)
    assert (drawn >= mask).all()
    # What was added is enclosed: not reachable from outside over unset pixels.
    outside = np.pad(mask, 1) == 0
    reached = np.zeros_like(outside)
    reached[0, 0] = True
    while True:
        grown = reached.copy()
        grown[1:] |= reached[:-1]
        grown[:-1] |= reached[1:]
        grown[:, 1:] |= reached[:, :-1]
        grown[:, :-1] |= reached[:, 1:]
        grown &= outside
        if (grown == reached).all():
            break
        reached = grown
    assert not (drawn.astype(bool) & reached[1:-1, 1:-1]).any()


def test_outlines_move_with_the_crop_and_thin_out_with_tolerance():
    y, x = np.mgrid[0:60, 0:80]
    disc = (np.hypot(x - 40, y - 30) < 25).astype(np.uint8)
    exact = mask_to_polygons(disc, x=7, y=5)[0]
    coarse = mask_to_polygons(disc, tolerance=1.0)[0]
    assert len(coarse) < len(exact) / 3
    moved = polygons_to_mask([exact], (70, 90))
    np.testing.assert_array_equal(moved[5:65, 7:87], disc)
    drawn = polygons_to_mask([coarse], (60, 80))
    assert (drawn & disc).sum() / (drawn | disc).sum() > 0.95


# Pasting


def resized(logits, size, frame):
    """What paste stands for, over every pixel of the picture."""
    x1, y1, x2, y2 = frame

    def axis(begin, end, cells, side):
        pixels = np.arange(side)
        inside = (pixels >= begin - 0.5) & (pixels < end - 0.5)
        pitch = (end - begin) / cells
        position = ((pixels + (0.5 - begin)) / pitch - 0.5).clip(0, cells - 1)
        low = position.astype(int)
        return low, np.minimum(low + 1, cells - 1), (position - low).astype(np.float32), inside

    top, bottom, down, row_inside = axis(y1, y2, logits.shape[0], size[0])
    left, right, along, column_inside = axis(x1, x2, logits.shape[1], size[1])
    rows = logits[:, left] + along * (logits[:, right] - logits[:, left])
    values = rows[top] + down[:, None] * (rows[bottom] - rows[top])
    return np.where(row_inside[:, None] & column_inside, values, -1)


sides = st.integers(1, 40)
grids = st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(
    lambda shape: arrays(np.float32, shape, elements=st.floats(-3, 3, width=32))
)


@settings(max_examples=300)
@given(grids, sides, sides, st.data())
def test_a_pasted_mask_is_the_resized_one_pixel_for_pixel(logits, height, width, data):
    corner = st.floats(-20, 30)
    extent = st.floats(0.25, 60)
    x1, y1, w, h = (data.draw(s) for s in (corner, corner, extent, extent))
    frame = data.draw(st.sampled_from([None, (x1, y1, x1 + w, y1 + h)]))
    crop = paste(logits, size=(height, width), frame=frame)
    expected = resized(logits, (height, width), frame or (0.0, 0.0, float(width), float(height))) > 0
    mask = full(crop, (height, width))
    assert mask.shape == (height, width)
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, expected)
    assert crop_to_rle(crop, (height, width)) == mask_to_rle(expected)


@pytest.mark.parametrize("size", [(427, 640), (1080, 1920), (33, 17), (255, 251), (1, 1), (1, 90)])
def test_pasting_agrees_with_paddle(size):
    rng = np.random.default_rng(0)
    logits = rng.normal(-0.5, 1, (40, 40)).astype(np.float32)
    # Paddle takes the first pixel where a side shrinks to 1.
    logits = logits[:1] if size[0] == 1 else logits
    logits = logits[:, :1] if size[1] == 1 else logits
    values = F.interpolate(paddle.to_tensor(logits)[None, None], size=size, mode="bilinear", align_corners=False)
    values = values.numpy()[0, 0]
    differing = full(paste(logits, size=size), size) != (values > 0)
    assert (np.abs(values[differing]) < 1e-4).all()


def test_the_border_of_the_logits_is_repeated_to_the_border_of_the_picture():
    logits = np.full((4, 4), -1, np.float32)
    logits[0, 0] = logits[3, 3] = 5
    mask = full(paste(logits, size=(40, 40)), (40, 40))
    assert mask[0, 0] == mask[39, 39] == 1
    assert mask[0, 39] == 0


@given(st.floats(-5, 25), st.floats(-5, 25), st.floats(0, 20), st.floats(0, 20))
def test_clip_keeps_the_columns_and_rows_from_x1_to_before_x2(x1, y1, w, h):
    logits = np.ones((3, 5), np.float32)
    mask = full(paste(logits, size=(17, 23), clip=(x1, y1, x1 + w, y1 + h)), (17, 23))
    rows, columns = np.mgrid[0:17, 0:23]
    expected = (columns >= x1) & (columns < x1 + w) & (rows >= y1) & (rows < y1 + h)
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"frame": (3.0, 3.0, 3.0, 9.0)},
        {"frame": (100.0, 100.0, 120.0, 120.0)},
        {"frame": (-30.0, -30.0, -10.0, -10.0)},
        {"clip": (4.0, 4.0, 4.0, 4.0)},
    ],
)
def test_nothing_to_show_is_an_empty_mask(arguments):
    logits = np.full((4, 4), 1.0 if arguments else -1.0, np.float32)
    crop = paste(logits, size=(20, 30), **arguments)
    assert not full(crop, (20, 30)).any()
    assert rle_area(crop_to_rle(crop, (20, 30))) == 0
