"""The fast graph, whichever engine runs it: masks are pasted outside of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from toolkit.data.detections import Detections, Floats, detect
from toolkit.data.preprocess import Prepared
from toolkit.errors import UserError
from toolkit.pipeline.exported import Exported

BATCH = "batch"
"""What the graph calls the number of pictures that come together."""

Run = Callable[[dict[str, Floats]], list[NDArray[np.generic]]]
"""Inputs by their names -> outputs in the graph's order."""


class FastGraph:
    """A Backend over a graph: `image` `[B, 3, h, w]`, `im_shape` `[B, 2]`, `threshold` `[1]` -> boxes, scores, labels,
    mask logits.

    Args:
        path: the graph's file.
        inputs: those that the graph has of the three.
        run: runs the graph; several threads may call it together.
        at_once: how many pictures the graph takes at most; None for any number.

    Raises UserError if the graph has another input.
    """

    shared = True

    def __init__(
        self,
        exported: Exported,
        name: str,
        path: Path | None,
        *,
        inputs: Sequence[str],
        run: Run,
        at_once: int | None,
    ) -> None:
        if unknown := set(inputs) - {"image", "im_shape", "threshold"}:
            raise UserError(
                f"{path}: has an input {sorted(unknown)[0]}, which this version does not know; it was exported by a "
                "newer version, or is no export of seg-tune"
            )
        self.name = name
        self._exported = exported
        self._inputs = inputs
        self._run = run
        self._at_once = at_once

    def __call__(self, batch: Sequence[Prepared], *, threshold: float) -> list[Detections]:
        return detect(
            self._network,
            batch,
            mask_frame=self._exported.mask_frame,
            mask_clip=self._exported.mask_clip,
            threshold=threshold,
            at_once=self._at_once,
        )

    def _network(self, image: Floats, im_shape: Floats, threshold: Floats) -> list[NDArray[np.generic]]:
        given = {"image": image, "im_shape": im_shape, "threshold": threshold}
        return self._run({name: given[name] for name in self._inputs})


def not_loadable(path: Path | None, error: Exception) -> UserError:
    """What an engine says of a file that it cannot load."""
    return UserError(f"{path}: not loadable: {' '.join(str(error).split())[:200]}")
