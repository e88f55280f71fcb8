"""The fast graph, whichever engine runs it: masks are pasted outside of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from toolkit.data.detections import Detections, Network, detect
from toolkit.data.preprocess import Prepared
from toolkit.errors import UserError
from toolkit.pipeline.exported import Exported

BATCH = "batch"
"""What the graph calls the number of pictures that come together."""


class FastGraph:
    """A Backend over `network`: image `[B, 3, h, w]`, im_shape `[B, 2]`, threshold `[1]` -> boxes, scores, labels, mask
    logits.

    Args:
        at_once: how many pictures the graph takes at most; None for any number.
        shared: whether several threads may call `network` together.
    """

    def __init__(
        self, exported: Exported, name: str, network: Network, *, at_once: int | None, shared: bool = False
    ) -> None:
        self.name = name
        self.shared = shared
        self._exported = exported
        self._network = network
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


def known_inputs(path: Path | None, names: Sequence[str]) -> Sequence[str]:
    """`names`, the inputs of a graph.

    Raises UserError if there are others than a fast graph has.
    """
    if unknown := set(names) - {"image", "im_shape", "threshold"}:
        raise UserError(
            f"{path}: has an input {sorted(unknown)[0]}, which this version does not know; it was exported by a newer "
            "version, or is no export of seg-tune"
        )
    return names


def not_loadable(path: Path | None, error: Exception) -> UserError:
    """What an engine says of a file that it cannot load."""
    return UserError(f"{path}: not loadable: {' '.join(str(error).split())[:200]}")
