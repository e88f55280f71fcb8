from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.evaluate import planted
from tests.evaluate.planted import CLASSES, Row, make_split, spoiled
from toolkit.evaluate.confidence import best_threshold, best_thresholds, confusion, outcomes, reliability

SPLIT = make_split(pictures=30)
OBJECTS = sum(len(picture.annotations) for picture in SPLIT.pictures)


def of_probability(row: Row, rng: np.random.Generator) -> list[Row]:
    """A score that is the chance to be right."""
    row = Row(row.label, float(rng.uniform(0.06, 1)), row.crop)
    return [row] if rng.random() < row.score else planted.far(row, rng)[1:]


def test_scores_that_are_probabilities_are_reliable_and_others_are_not() -> None:
    tables = spoiled(SPLIT, of_probability, part=1)
    rows, right, _ = outcomes(tables, classes=len(CLASSES))
    good = reliability(tables.score[rows], right)
    assert good.ece is not None
    assert good.ece < 0.08
    assert int(good.count.sum()) == len(rows)
    sure = reliability(tables.score[rows] ** 0.25, right)
    assert sure.ece is not None
    assert sure.surplus is not None
    assert sure.ece > 0.2
    assert sure.surplus == pytest.approx(sure.ece, abs=0.05)
    assert reliability(np.zeros(0), np.zeros(0, np.bool_)).ece is None


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 20), st.booleans()), max_size=30), st.integers(0, 5), st.floats(0, 1))
def test_no_threshold_is_better(detections: list[tuple[int, bool]], more: int, precision: float) -> None:
    score = np.array([s / 20 for s, _ in detections])
    right = np.array([r for _, r in detections], np.bool_)
    truths = int(right.sum()) + more

    def at(threshold: float) -> tuple[float, float, float]:
        shown = score >= threshold
        hits = int((shown & right).sum())
        exact, recall = hits / max(int(shown.sum()), 1), hits / max(truths, 1)
        return exact, recall, 2 * hits / max(int(shown.sum()) + truths, 1)

    best = best_threshold(score, right, truths)
    if not right.any():
        assert best is None
        return
    assert best is not None
    assert (best.precision, best.recall, best.f1) == pytest.approx(at(best.score))
    assert best.f1 == pytest.approx(max(at(s)[2] for s in score))
    wanted = best_threshold(score, right, truths, precision=precision)
    assert wanted is not None
    assert (wanted.precision, wanted.recall) == pytest.approx(at(wanted.score)[:2])
    enough = [at(s)[1] for s in score if at(s)[0] >= precision]
    assert wanted.reached == bool(enough)
    if enough:
        assert wanted.precision >= precision
        assert wanted.recall == pytest.approx(max(enough))
    else:
        assert wanted.precision == pytest.approx(max(at(s)[0] for s in score))


def test_each_class_has_its_threshold() -> None:
    def by_class(row: Row, rng: np.random.Generator) -> list[Row]:
        # What is wrong of a class has scores below (1 + label) / 5, what is right above.
        edge = (1 + row.label) / 5
        right = Row(row.label, float(rng.uniform(edge, 1)), row.crop)
        wrong = Row(row.label, float(rng.uniform(0, edge - 0.05)), planted.far(row, rng)[1].crop)
        return [right, wrong]

    best = best_thresholds(spoiled(SPLIT, by_class, part=1), CLASSES)
    assert list(best) == list(CLASSES)
    for label, threshold in enumerate(best.values()):
        assert (1 + label) / 5 - 0.06 < threshold.score < (1 + label) / 5 + 0.02
        assert threshold.f1 == pytest.approx(1)


def test_the_confusion_matrix_counts_each_annotation_and_each_detection_once() -> None:
    tables = spoiled(SPLIT, planted.swapped)
    matrix = confusion(tables, classes=len(CLASSES), threshold=0.5)
    assert matrix[:-1].sum() == OBJECTS
    assert matrix[:, :-1].sum() == len(tables.label)
    swapped = sum(matrix[k, (k + 1) % 3] for k in range(3))
    assert 0.15 * OBJECTS < swapped < 0.25 * OBJECTS
    assert matrix[:-1, :-1].trace() + swapped == OBJECTS
    assert matrix[-1].sum() == matrix[:, -1].sum() == 0
    far = confusion(spoiled(SPLIT, planted.far), classes=len(CLASSES), threshold=0.5)
    assert 0.15 * OBJECTS < far[-1].sum() < 0.25 * OBJECTS
    dropped = confusion(spoiled(SPLIT, planted.dropped), classes=len(CLASSES), threshold=0.5)
    assert 0.15 * OBJECTS < dropped[:, -1].sum() < 0.25 * OBJECTS
    nothing = confusion(tables, classes=len(CLASSES), threshold=1.1)
    assert nothing[:-1, -1].sum() == OBJECTS
