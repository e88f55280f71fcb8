"""The largest batch that fits into memory."""

from __future__ import annotations

from toolkit.data.coco import Dataset
from toolkit.data.loader import TrainBatches
from toolkit.errors import UserError
from toolkit.models import model_of
from toolkit.recipe import Recipe
from toolkit.train import distributed, memory
from toolkit.train.rehearsal import rehearse

SHARE = 0.8
"""Of the memory, that a batch may fill: other sizes and numbers of objects follow."""
MOST = 64
"""Pictures a device; fine-tuning gains nothing from more."""


def fitting_batch_size(recipe: Recipe, dataset: Dataset) -> int:
    """A power of two of pictures on each device, as many as memory holds, but no more than there are.

    What a step needs grows in proportion to its pictures, so two small batches tell the rest.

    Raises UserError if not even those fit.
    """
    room = memory.available()
    if room is None:
        raise UserError("--batch-size auto: this system does not say how much memory there is; give a number")
    devices = distributed.count()
    model = model_of(recipe)
    needs = []
    for pictures in (2, 4):
        trial = with_batch_size(recipe, pictures * devices * recipe.train.accumulate)
        batches = TrainBatches(dataset.train, trial, rank=distributed.rank(), ranks=devices)
        needs.append(rehearse(model, trial, dataset, batches, None).memory)
    most = fitting(needs[0], needs[1], room=int(SHARE * room), pictures=batches.pictures // devices)
    return min(distributed.gather(most)) * devices


def fitting(two: int, four: int, *, room: int, pictures: int) -> int:
    """The largest power of two up to `pictures` that fits into `room`; 2 pictures need `two` bytes and 4 `four`."""
    each = max((four - two) / 2, 1.0)
    most = min(2 + (room - two) / each, pictures, MOST)
    return 1 if most < 2 else 2 ** (int(most).bit_length() - 1)


def with_batch_size(recipe: Recipe, size: int) -> Recipe:
    """The recipe with another batch size; its learning rate follows by itself."""
    return recipe.model_copy(update={"train": recipe.train.model_copy(update={"batch_size": size})})
