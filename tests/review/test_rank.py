"""Each kind of disagreement is found, and what is surer or rarer comes in its place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from toolkit.data.coco import Annotation, Picture, Split
from toolkit.data.detections import Detections
from toolkit.data.masks import Crop, polygons_to_mask
from toolkit.review.rank import RAREST, Judged, judge, weights_of

CLASSES = ("disc", "square")
SIZE = (60, 80)


def outline(x: float, y: float, side: float = 10.0) -> list[np.ndarray]:
    return [np.array([x, y, x + side, y, x + side, y + side, x, y + side])]


def annotation(x: float, y: float, label: int = 0, *, side: float = 10.0, crowd: bool = False) -> Annotation:
    return Annotation(1, label, (x, y, x + side, y + side), outline(x, y, side), side * side, crowd)


def found(*rows: tuple[float, int, int, int]) -> Detections:
    """Score, label, x, y of squares of side 10."""
    return Detections(
        boxes=np.array([[x, y, x + 10, y + 10] for *_, x, y in rows], np.float32).reshape(-1, 4),
        scores=np.array([row[0] for row in rows], np.float32),
        labels=np.array([row[1] for row in rows], np.int64),
        masks=[Crop(np.ones((10, 10), np.uint8), x, y) for *_, x, y in rows],
        size=SIZE,
    )


def judged(
    annotations: list[Annotation] | None, detections: Detections, weights: tuple[float, float] = (1.0, 1.0)
) -> Judged:
    return judge(
        Picture(1, Path("a.png"), "a.png", *SIZE, annotations or []),
        detections,
        part="val",
        annotated=annotations is not None,
        classes=CLASSES,
        weights=np.array(weights),
        threshold=0.5,
    )


def said(one: Judged) -> list[tuple[float, str]]:
    return [(pytest.approx(point.gain, abs=1e-6), point.text) for point in one.points]


def test_agreement_is_no_reason() -> None:
    assert judged([annotation(5, 5)], found((0.55, 0, 5, 5))).points == []
    assert judged([annotation(5, 5)], found((0.31, 0, 5, 5))).points == [], "found, if not surely"
    assert judged(None, found((0.9, 0, 5, 5), (0.1, 1, 30, 30))).points == []


@pytest.mark.parametrize(
    ("annotations", "detections", "points", "suggested"),
    [
        ([], [(0.9, 1, 5, 5)], [(1.0, "predicted, not annotated: square 0.90")], ["square"]),
        ([annotation(5, 5)], [], [(1.0, "annotated, not found: disc")], []),
        ([annotation(5, 5)], [(0.9, 1, 5, 5)], [(1.0, "annotated disc, predicted square 0.90")], ["square"]),
        ([annotation(5, 5)], [(0.9, 0, 8, 5)], [(1 - 7 / 13, "outlines differ, IoU 0.54: disc 0.90")], ["disc"]),
        ([], [(0.4, 0, 5, 5)], [(0.25, "unsure: disc 0.40")], []),
        ([annotation(0, 0, side=40, crowd=True)], [(0.9, 0, 5, 5)], [], []),
        # The second finds the annotation taken.
        (
            [annotation(5, 5)],
            [(0.9, 0, 5, 5), (0.8, 0, 5, 5)],
            [(1.0, "predicted, not annotated: disc 0.80")],
            ["disc"],
        ),
    ],
)
def test_disagreements(
    annotations: list[Annotation], detections: list[tuple[float, int, int, int]], points: object, suggested: list[str]
) -> None:
    one = judged(annotations, found(*detections))
    assert said(one) == points
    assert [shape.label for shape in one.shapes if shape.suggested] == suggested
    assert len(one.shapes) == len(annotations) + len(suggested), "annotations are drawn as they are"


def test_without_annotations_the_unsure_count_on_both_sides() -> None:
    one = judged(None, found((0.9, 0, 0, 0), (0.6, 0, 20, 0), (0.5, 1, 40, 0), (0.31, 0, 60, 0), (0.45, 0, 0, 1)))
    assert said(one) == [(0.5, "unsure: square 0.50"), (0.25, "unsure: disc 0.60"), (0.025, "unsure: disc 0.31")], (
        "the last one lies on a surer one"
    )
    assert one.gain == pytest.approx(0.775)
    assert [(shape.label, shape.suggested) for shape in one.shapes] == [
        ("disc", False),
        ("disc", False),
        ("square", False),
    ]
    drawn = polygons_to_mask(one.shapes[2].segmentation, SIZE)  # type: ignore[arg-type]
    assert drawn.sum() == 100
    assert drawn[0:10, 40:50].all()


def test_rare_classes_count_more() -> None:
    common, rare = judged([], found((0.9, 0, 5, 5)), (1.0, 2.0)), judged([], found((0.9, 1, 5, 5)), (1.0, 2.0))
    assert (common.gain, rare.gain) == (1.0, 2.0)
    pictures = [Picture(i, Path("a"), "a", *SIZE, [annotation(0, 0)] * 9) for i in range(100)]
    pictures[0].annotations.append(annotation(0, 0, 1))
    split = Split("train", Path("a.json"), (*CLASSES, "unseen"), (1, 2, 3), pictures)
    assert weights_of(split).tolist() == [1.0, RAREST, RAREST]
