"""Which detection takes which annotation: COCO's greedy rule, for all pictures and IoU thresholds together."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from toolkit.evaluate.overlap import Bools, Floats, Ints, Pairs


@dataclass(frozen=True)
class Matches:
    """The detections that overlap some annotation, and what each took."""

    found: Ints
    """`[m]`, rows of the detections, ascending."""
    truth: Ints
    """`[T, m]`, row of the annotation at each IoU threshold, -1 for none."""


def match(pairs: Pairs, group: Ints, *, crowd: Bools, ignored: Bools, thresholds: Floats) -> Matches:
    """Let the detections choose, the best of each group first.

    A detection takes, of the annotations that are left and overlap it enough, one that counts rather than one that is
    ignored, then the one with the highest IoU, then the last. Crowd regions are never used up.

    Args:
        pairs: of one group each; rows of detections ascend with falling score inside a group.
        group: `[D]`, detections of different groups have no annotation in common.
        crowd, ignored: `[G]`.
        thresholds: `[T]`, least IoU.
    """
    # 1 - 1e-10 as in pycocotools: a mask equals itself at a threshold of 1.
    least = np.minimum(thresholds, 1 - 1e-10)[:, None]
    found, slot = np.unique(pairs.found, return_inverse=True)
    order = np.lexsort((-pairs.truth, -pairs.iou, ignored[pairs.truth], slot, turns(group[found])[slot]))
    slot, truth, iou = slot[order], pairs.truth[order], pairs.iou[order]
    turn = turns(group[found])[slot]
    taken = np.full((len(least), len(found)), -1, np.int64)
    free = np.ones((len(least), len(crowd)), np.bool_)
    # All groups take their turns at once: a round looks at no annotation twice but by its one detection.
    rounds = np.flatnonzero(np.diff(turn, prepend=-1, append=-1)).tolist() if len(turn) else []
    for start, end in pairwise(rounds):
        here, wanted = slot[start:end], truth[start:end]
        possible = (iou[start:end] >= least) & free[:, wanted]
        first = np.flatnonzero(np.diff(here, prepend=-1))
        place = np.minimum.reduceat(np.where(possible, np.arange(end - start), end - start), first, axis=1)
        threshold, which = np.nonzero(place < end - start)
        chosen = wanted[place[threshold, which]]
        taken[threshold, here[first[which]]] = chosen
        free[threshold, chosen] = crowd[chosen]
    return Matches(found, taken)


def turns(group: Ints) -> Ints:
    """The place of each row inside its group."""
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    turns = np.empty(len(group), np.int64)
    turns[order] = np.arange(len(group)) - np.repeat(starts, np.diff(starts, append=len(group)))
    return turns
