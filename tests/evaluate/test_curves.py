"""Precision, recall and scores have the bits of pycocotools."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.evaluate.reference import Found, by_pycocotools, random_case
from toolkit.data.coco import Split
from toolkit.evaluate import curves as module
from toolkit.evaluate.ap import Evaluator
from toolkit.evaluate.curves import curves
from toolkit.evaluate.match import match
from toolkit.evaluate.overlap import Pairs
from toolkit.evaluate.tables import join, tabulate


def differing(split: Split, found: Found, limit: int, *, thorough: bool = False) -> list[str]:
    """Names of the arrays that differ in any bit."""
    evaluator = Evaluator(split, max_detections=limit, thorough=thorough)
    for picture, each in found.items():
        evaluator.add(picture, each)
    tables = evaluator.tables()
    names = []
    for kind in ("mask", "box"):
        ours = curves(tables, kind, classes=len(split.classes), limits=sorted((1, 10, limit)))  # type: ignore[arg-type]
        theirs = by_pycocotools(split, found, limit, kind)
        names += [
            f"{kind} {name}" for name, array in theirs.items() if getattr(ours, name).tobytes() != array.tobytes()
        ]
    return names


@pytest.mark.parametrize("start", range(0, 80, 40))
def test_random_cases_have_the_bits_of_pycocotools(start: int) -> None:
    for seed in range(start, start + 40):
        assert differing(*random_case(seed), thorough=seed % 2 == 0) == [], seed


@pytest.mark.slow
@pytest.mark.parametrize("start", range(1000, 3000, 250))
def test_many_random_cases_have_the_bits_of_pycocotools(start: int) -> None:
    for seed in range(start, start + 250):
        assert differing(*random_case(seed), thorough=seed % 2 == 0) == [], seed


def _first_of_equals(pairs: Pairs, *args: Any, **kwargs: Any) -> Any:
    count = pairs.truth.max(initial=0)
    turned = Pairs(pairs.found, count - pairs.truth, pairs.iou)
    sides = {name: kwargs[name][count::-1] for name in ("crowd", "ignored")}
    matches = match(turned, *args, **{**kwargs, **sides})
    return replace(matches, truth=np.where(matches.truth < 0, -1, count - matches.truth))


FAULTS = {
    "ties to the first": _first_of_equals,
    "crowds are used up": lambda *a, **k: match(*a, **{**k, "crowd": np.zeros_like(k["crowd"])}),
    "ignored ones are no worse": lambda *a, **k: match(*a, **{**k, "ignored": np.zeros_like(k["ignored"])}),
    "a threshold is exclusive": lambda *a, **k: match(*a, **{**k, "thresholds": k["thresholds"] + 1e-12}),
    "the worst choose first": lambda p, g, **k: match(p, np.arange(len(g)), **k),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_matching_shows(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "match", FAULTS[fault])
    assert any(differing(*random_case(seed)) for seed in range(60))


def test_a_fault_in_the_order_of_pictures_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.evaluate.ap.join", _unsorted)
    assert any(differing(*random_case(seed)) for seed in range(60))


def _unsorted(parts: Any) -> Any:
    renamed = [replace(part, picture_ids=np.array([-i])) for i, part in enumerate(parts)]
    return join(renamed)


def test_the_tables_of_one_picture_are_those_that_are_joined() -> None:
    split, found, _ = random_case(5)
    picture = split.pictures[0]
    one = tabulate(picture, found[picture.id])
    assert join([one]).score.tolist() == one.score.tolist()
    assert join([]).picture_ids.size == 0
