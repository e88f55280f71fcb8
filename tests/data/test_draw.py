from __future__ import annotations

import numpy as np

from toolkit.data.draw import colour_of, draw_instances

GROUND = np.full((120, 160, 3), 128, np.uint8)


def drawn(**changes: object) -> np.ndarray:
    mask = np.zeros((40, 60), np.uint8)
    mask[10:30, 10:50] = 1
    arguments: dict[str, object] = {
        "boxes": [(50, 60, 110, 100)],
        "masks": [mask],
        "labels": ["disc"],
        "scores": [0.9],
        "classes": [0],
    }
    return draw_instances(GROUND, **{**arguments, **changes})  # type: ignore[arg-type]


def test_only_the_mask_the_box_and_the_label_are_painted() -> None:
    picture = drawn()
    assert picture.shape == GROUND.shape
    assert picture.dtype == np.uint8
    changed = (picture != GROUND).any(axis=2)
    inside = np.zeros_like(changed)
    inside[60:100, 50:110] = True
    mask = np.zeros_like(changed)
    mask[70:90, 60:100] = True
    assert changed[mask].all()
    # Of the rest of the box only the frame and the outline's rim.
    assert changed[inside & ~mask].mean() < 0.35
    # The label stands above the box; nothing else does.
    assert changed[:60].any()
    assert not changed[:40].any()
    assert not changed[100:].any()


def test_the_outline_is_the_rim_of_the_mask_also_at_the_edge_of_its_box() -> None:
    mask = np.ones((40, 60), np.uint8)
    mask[20:22, 20:22] = 0
    picture = drawn(boxes=[(90, 70, 150, 110)], masks=[mask], labels=[""])
    rim = colour_of(0)
    assert (picture[75, 92:140] != rim).any()
    for y, x in ((89, 110), (92, 111), (90, 109), (91, 112)):
        assert tuple(picture[y, x]) == rim
    assert (picture[90:92, 110:112] == 128).all()


def test_the_picture_given_is_not_touched() -> None:
    before = GROUND.copy()
    drawn()
    assert (before == GROUND).all()


def test_nothing_found_is_the_picture_itself() -> None:
    assert (drawn(boxes=[], masks=[], labels=[], scores=[], classes=[]) == GROUND).all()


def test_empty_masks_boxes_without_area_and_any_script() -> None:
    picture = drawn(
        boxes=[(0, 0, 0, 0), (150, 110, 160, 120), (0, 0, 160, 120)],
        masks=[np.zeros((0, 0), np.uint8), np.zeros((10, 10), np.uint8), np.ones((120, 160), np.uint8)],
        labels=["猫", "größer", "x" * 80],
        scores=[0.5, 0.5, 0.5],
        classes=[0, 1, 2],
    )
    assert picture.shape == GROUND.shape


def test_classes_differ_in_hue_and_instances_in_lightness() -> None:
    colours = {colour_of(c, n) for c in range(20) for n in range(4)}
    assert len(colours) == 80
    apart = [np.abs(np.subtract(colour_of(a), colour_of(b))).sum() for a in range(6) for b in range(a)]
    assert min(apart) > 60
