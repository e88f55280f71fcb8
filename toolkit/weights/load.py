"""Weights from files into models, and trained ones into files."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors
import safetensors.numpy

from toolkit.errors import UserError
from toolkit.weights import pickled

if TYPE_CHECKING:
    from paddle import nn

LEAST_SHARE = 0.1
"""Share of a model's tensors below which weights count as those of another model. A backbone alone is a third or more;
what two families share by chance is under 2 %."""

# Entries that paddle.save adds to a state_dict.
_PARAMETER_NAMES = "StructuredToParameterName@@"
_BIG_TENSORS = "UnpackBigParamInfor@@"

# bfloat16, which NumPy lacks, comes as its bits.
_SAFETENSORS = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "?",
}

# Where the sixteen differ in their keys.
_FAMILIES = {
    "transformer.": "Mask-RT-DETR",
    "yolo_head.": "PP-YOLOE_seg",
    "solov2_head.": "SOLOv2",
    "rpn_head.": "Mask R-CNN or Cascade Mask R-CNN",
}


@dataclass(frozen=True, kw_only=True)
class Misfit:
    """A tensor whose shape in the file is not the one in the model."""

    name: str
    there: tuple[int, ...]
    here: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Report:
    """What became of each tensor of the model, by state_dict key, and of those in the file beyond them."""

    matched: list[str]
    missing: list[str]
    misshaped: list[Misfit]
    unexpected: list[str]

    def describe(self) -> str:
        """One line for people."""
        total = len(self.matched) + len(self.missing) + len(self.misshaped)
        parts = [f"loaded {len(self.matched)} of {total} tensors"]
        if self.misshaped:
            names = _some([misfit.name for misfit in self.misshaped])
            parts.append(f"{len(self.misshaped)} of another shape kept fresh: {names} ({self._difference()})")
        if self.missing:
            parts.append(f"{len(self.missing)} not in the file kept fresh: {_some(self.missing)}")
        if self.unexpected:
            parts.append(f"{len(self.unexpected)} in the file not used: {_some(self.unexpected)}")
        return "; ".join(parts)

    def _difference(self) -> str:
        sides = {
            pair
            for misfit in self.misshaped
            for pair in zip(misfit.there, misfit.here, strict=False)
            if pair[0] != pair[1]
        }
        if len(sides) == 1 and all(len(misfit.there) == len(misfit.here) for misfit in self.misshaped):
            there, here = sides.pop()
            return f"{there} classes there, {here} here"
        first = self.misshaped[0]
        return f"the first is {list(first.there)} there, {list(first.here)} here"


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a `.pdparams` or `.safetensors` file by name; of a run's checkpoint, those that it evaluates.

    bfloat16, which NumPy lacks, comes as its bits in uint16.

    Raises UserError for anything but a dict of tensors, by place. Nothing in the file is run.
    """
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    tree = pickled.read(path)
    if not isinstance(tree, dict):
        raise UserError(f"{path}: not a weights file: {_kind(tree)}, not a dict of names and tensors")
    if isinstance(tree.get("model"), dict):
        average = tree["ema"].get("average") if isinstance(tree.get("ema"), dict) else None
        # Version 0.1 kept master weights beside those in float16.
        masters = tree.get("master_weights")
        tree = {
            **tree["model"],
            **(masters if isinstance(masters, dict) else {}),
            **(average if isinstance(average, dict) else {}),
        }
    tree.pop(_PARAMETER_NAMES, None)
    if _BIG_TENSORS in tree:
        _join_slices(tree, path)
    for name, value in tree.items():
        if not isinstance(name, str) or not isinstance(value, np.ndarray):
            raise UserError(f"{path}: {name}: {_kind(value)}, not a tensor; a weights file maps names to tensors")
    return tree


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The dict that `write_atomically` wrote; arrays in it are read-only.

    Raises UserError for anything else. Nothing in the file is run.
    """
    tree = pickled.read(path)
    if not isinstance(tree, dict):
        raise UserError(f"{path}: not a checkpoint: {_kind(tree)}, not a dict")
    return tree


def write_atomically(path: Path, tree: dict[str, Any]) -> None:
    """Write nested dicts, lists, tuples, numbers, strings and arrays in the format of `paddle.save`.

    A file that is there already stays whole until the new one lies safely on the disk.

    Raises UserError if it cannot be written.
    """
    _replace(path, lambda emit: pickled.write(tree, emit))


def write_safetensors(path: Path, weights: dict[str, np.ndarray], *, metadata: dict[str, str] | None = None) -> None:
    """Write tensors as safetensors (Hugging Face), in one step as `write_atomically` does.

    Raises UserError if it cannot be written.
    """
    content = safetensors.numpy.save({k: np.ascontiguousarray(v) for k, v in weights.items()}, metadata)
    _replace(path, lambda emit: emit(content))


def _replace(path: Path, write: Callable[[Callable[[Any], Any]], Any]) -> None:
    temporary = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                write(file.write)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from None


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        entries = safetensors.deserialize(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except safetensors.SafetensorError as error:
        raise UserError(f"{path}: not a whole safetensors file ({' '.join(str(error).split()):.80})") from None
    weights = {}
    for name, entry in entries:
        if entry["dtype"] not in _SAFETENSORS:
            raise UserError(f"{path}: {name}: numbers of kind {entry['dtype']}, which are not read here")
        weights[name] = np.frombuffer(entry["data"], _SAFETENSORS[entry["dtype"]]).reshape(entry["shape"])
    return weights


def load_weights(model: nn.Layer, weights: dict[str, np.ndarray], *, origin: Path | str = "weights") -> Report:
    """Put into `model` whatever fits by name and shape; the rest of it keeps its values.

    With another number of classes the tensors of the classification differ in shape, and so stay fresh. Numbers of
    another precision are converted. `origin` names the weights in errors.

    Raises UserError, with the model untouched, if next to nothing fits.
    """
    own = model.state_dict()
    fitting: dict[str, np.ndarray] = {}
    missing, misshaped = [], []
    for name, tensor in own.items():
        here = tuple(tensor.shape)
        if name not in weights:
            missing.append(name)
        elif weights[name].shape != here:
            misshaped.append(Misfit(name=name, there=weights[name].shape, here=here))
        else:
            fitting[name] = _converted(weights[name], str(tensor.dtype).rpartition(".")[2])
    if len(fitting) < LEAST_SHARE * len(own):
        raise UserError(_of_another_model(weights, fitting, own, origin))
    for name, value in fitting.items():
        own[name].set_value(value)
    unexpected = [name for name in weights if name not in own]
    return Report(matched=list(fitting), missing=missing, misshaped=misshaped, unexpected=unexpected)


def _of_another_model(weights: dict[str, Any], fitting: dict[str, Any], own: dict[str, Any], origin: Path | str) -> str:
    count = f"{len(fitting)} of the model's {len(own)} tensors"
    family = next((name for key, name in _FAMILIES.items() if any(k.startswith(key) for k in weights)), None)
    mine = next((name for key, name in _FAMILIES.items() if any(k.startswith(key) for k in own)), None)
    looks = f" (they look like {family})" if family and family != mine else ""
    return f"{origin}: these are weights of another model{looks}: only {count} are in there in the right shape"


def _converted(value: np.ndarray, dtype: str) -> np.ndarray:
    if value.dtype == np.uint16 and dtype == "float32":
        return np.asarray(value.astype(np.uint32) << 16).view(np.float32)  # bfloat16 is the upper half of a float32.
    return value.astype(dtype, copy=False)


def _join_slices(tree: dict[str, Any], path: Path) -> None:
    """Put together the tensors of more than a gigabyte, which paddle.save cuts up under protocols 2 and 3."""
    try:
        for name, entry in tree.pop(_BIG_TENSORS).items():
            slices = [tree.pop(part) for part in entry["slices"]]
            tree[name] = np.concatenate(slices).reshape(entry["OriginShape"])
    except (AttributeError, KeyError, TypeError, ValueError):
        raise UserError(f"{path}: {_BIG_TENSORS}: damaged; a slice of a large tensor is missing or too short") from None


def _kind(value: Any) -> str:
    return f"{'an' if type(value).__name__[0] in 'aeiou' else 'a'} {type(value).__name__}"


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _sync_folder(folder: Path) -> None:
    # Windows cannot open a folder, and some network file systems cannot sync one.
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
