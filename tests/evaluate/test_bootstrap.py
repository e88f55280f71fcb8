from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.evaluate.reference import random_case
from toolkit.data.coco import Split
from toolkit.data.detections import Detections
from toolkit.evaluate.ap import Evaluator
from toolkit.evaluate.bootstrap import draws, interval, mean, resampled
from toolkit.evaluate.curves import AREAS, curves
from toolkit.evaluate.tables import Tables


def tables_of(split: Split, found: dict[int, Detections]) -> Tables:
    evaluator = Evaluator(split)
    for picture, each in found.items():
        evaluator.add(picture, each)
    return evaluator.tables()


@pytest.mark.parametrize("seed", range(0, 24))
def test_a_draw_has_the_ap_of_its_pictures_as_often_as_they_are_drawn(seed: int) -> None:
    split, found, limit = random_case(seed)
    # Ties between pictures are broken by their order, which no draw has.
    rng = np.random.default_rng(seed)
    found = {k: replace(one, scores=rng.permutation(1000)[: len(one)] / 1000 + k * 1e-6) for k, one in found.items()}
    tables, classes = tables_of(split, found), len(split.classes)
    weights = np.concatenate([np.ones((1, len(split.pictures)), np.int64), draws(len(split.pictures), 3, seed=seed)])
    for kind in ("mask", "box"):
        drawn = resampled(tables, kind, weights, classes=classes, limit=limit, area=AREAS[seed % 4])  # type: ignore[arg-type]
        for row, weight in zip(drawn, weights, strict=True):
            pictures, detections = [], {}
            for place, number in enumerate(tables.picture_ids.tolist()):
                [picture] = [p for p in split.pictures if p.id == number]
                for again in range(weight[place]):
                    pictures.append(replace(picture, id=number * 100 + again))
                    detections[number * 100 + again] = found[number]
            repeated = tables_of(replace(split, pictures=pictures), detections)
            precision = curves(repeated, kind, classes=classes, limits=(limit,)).precision[..., seed % 4, 0]  # type: ignore[arg-type]
            ap = np.where(precision[:, 0] < 0, np.nan, precision.mean(1))
            assert row == pytest.approx(ap, abs=1e-9, nan_ok=True)


def test_intervals_are_wide_for_few_pictures_and_narrow_for_many() -> None:
    def width(pictures: int) -> float:
        # A class whose objects are found in every other picture.
        right = np.arange(pictures) % 2 == 0
        ones = np.ones(pictures)
        rows, hits = np.arange(pictures), np.flatnonzero(right)
        empty = np.zeros(0, np.int64)
        tables = tables_of(Split("", None, ("a",), (1,), []), {})  # type: ignore[arg-type]
        pairs = replace(tables.mask, found=hits, truth=hits, iou=np.ones(len(hits)))
        tables = replace(
            tables,
            picture_ids=rows,
            picture=rows,
            label=np.zeros(pictures, np.int64),
            score=ones,
            mask_area=ones,
            box_area=ones,
            truth_picture=rows,
            truth_label=np.zeros(pictures, np.int64),
            truth_area=ones,
            truth_crowd=np.zeros(pictures, np.bool_),
            mask=pairs,
            box=replace(pairs, found=empty, truth=empty, iou=np.zeros(0)),
        )
        drawn = mean(resampled(tables, "mask", draws(pictures, 300), classes=1))
        measured = interval(0.25, drawn)
        assert measured.low is not None
        assert measured.high is not None
        assert measured.low < 0.27
        assert measured.high > 0.24
        return measured.high - measured.low

    narrow, wide = width(1600), width(25)
    assert 4 < wide / narrow < 16


def test_nothing_to_measure_has_no_interval() -> None:
    assert interval(None, np.full(5, np.nan)).low is None
    assert np.isnan(mean(np.full((2, 3, 1), np.nan))).all()
