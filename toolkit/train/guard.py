"""Steps whose loss or gradients are not finite do not reach the weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from paddle import Tensor, nn

from toolkit.errors import UserError
from toolkit.recipe import Recipe
from toolkit.run import Run
from toolkit.train import distributed, pictures
from toolkit.train.log import Log


class Guard:
    """Skips such steps, names and saves their pictures, and after some in a row ends the run.

    What a forward pass has changed by then, the running statistics of batch norms, is put back.
    """

    def __init__(self, model: nn.Layer, recipe: Recipe, run: Run, log: Log, *, files: dict[int, str]) -> None:
        self._recipe, self._run, self._log, self._files = recipe, run, log, files
        self._statistics: list[Tensor] = [
            value for name, value in model.state_dict().items() if name.endswith(("._mean", "._variance"))
        ]
        self._before: list[Tensor] = []
        self._in_a_row = 0

    def begin(self) -> None:
        """A step begins."""
        self._before = [value.clone() for value in self._statistics]

    def allows(self, values: dict[str, float], batches: Sequence[dict[str, Any]], *, step: int) -> bool:
        """Whether the step that made `values` of `batches` may change the weights.

        Raises UserError after too many in a row that may not.
        """
        wrong = [name for name, value in values.items() if not math.isfinite(value)]
        if not wrong:
            self._in_a_row = 0
            return True
        for value, before in zip(self._statistics, self._before, strict=True):
            value.set_value(before)
        self._in_a_row += 1
        folder = self._run.path / "not_finite" / f"step-{step + 1}"
        names = []
        for batch in batches:
            for row, picture_id in enumerate(batch["image_ids"]):
                name = self._files.get(picture_id, str(picture_id))
                names.append(name)
                # Tiles of one picture share its id.
                file = f"{picture_id}-{distributed.rank()}-{len(names)}.png"
                pictures.save(folder / file, pictures.network_input(batch, row, self._recipe))
        names = [name for theirs in distributed.gather(names) for name in theirs]
        parts = [name for name in wrong if name != "loss"] or wrong
        line = f"step {step + 1} skipped: {', '.join(parts)} not finite; its pictures: {', '.join(names)}; see {folder}"
        self._log.say(line)
        if self._in_a_row >= self._recipe.train.skip_at_most:
            raise UserError(
                f"{self._run.path}: {', '.join(parts)} not finite in {self._in_a_row} steps in a row; lower --lr and "
                "start anew (the last good checkpoint and the best weights are kept)"
            )
        return False
