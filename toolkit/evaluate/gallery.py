"""The pictures that go worst, kept while the others pass by."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

import cv2
import numpy as np

from toolkit.data.coco import Picture
from toolkit.data.detections import Detections
from toolkit.data.draw import draw_detections, draw_truth
from toolkit.data.images import read_rgb
from toolkit.evaluate.curves import Ranking
from toolkit.evaluate.tables import SAME, Tables

SHOWN = 12
SIDE = 520
"""Longer side of the pictures, pixels."""


@dataclass(frozen=True, order=True)
class Bad:
    """A picture by how bad it is."""

    badness: float
    """Objects missed, and the scores of what is not there."""
    earliness: int
    missed: int = field(compare=False)
    false: int = field(compare=False)
    picture: Picture = field(compare=False)
    found: Detections = field(compare=False)

    def drawn(self, classes: tuple[str, ...]) -> tuple[bytes, bytes]:
        """The annotations and what was found, each as JPEG.

        Raises UserError where the picture cannot be read.
        """
        rgb = read_rgb(self.picture.path)
        scale = min(1.0, SIDE / max(rgb.shape[:2]))
        truth, found = (
            cv2.imencode(
                ".jpg",
                cv2.resize(drawn, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)[..., ::-1],
                [cv2.IMWRITE_JPEG_QUALITY, 82],
            )[1].tobytes()
            for drawn in (draw_truth(rgb, self.picture, classes), draw_detections(rgb, self.found, classes))
        )
        return truth, found


class Gallery:
    """Keeps the `most` worst of the pictures that are added.

    Args:
        threshold: least score of a detection that is looked at.
    """

    def __init__(self, *, classes: int, threshold: float, most: int = SHOWN) -> None:
        self.classes, self.threshold, self.most = classes, threshold, most
        self._worst: list[Bad] = []
        self._seen = 0

    def add(self, picture: Picture, found: Detections, tables: Tables) -> None:
        """Look at a picture; `tables` are its own."""
        shown = tables.score >= self.threshold
        ranking = Ranking(tables, "mask", classes=self.classes, limit=len(tables.label))
        outcome = ranking.outcome(ious=np.array([SAME]))
        [taken] = outcome.taken
        hits = taken.where(shown[taken.found])
        missed = int(outcome.counts.sum() - hits.right.sum())
        shown[hits.found] = False
        badness = missed + float(tables.score[shown].sum())
        self._seen += 1
        if badness > 0:
            sure = found.kept(found.scores >= self.threshold)
            bad = Bad(badness, -self._seen, missed, int(shown.sum()), picture, sure)
            (heapq.heappush if len(self._worst) < self.most else heapq.heappushpop)(self._worst, bad)

    def worst(self) -> list[Bad]:
        """The worst first."""
        return sorted(self._worst, reverse=True)
