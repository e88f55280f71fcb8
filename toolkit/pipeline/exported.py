"""The folder of an exported model, as `seg-tune export` and PaddleX's own exports have it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from toolkit.data.preprocess import Preprocess
from toolkit.errors import UserError
from toolkit.recipe import Tiling, parse_tiling


@dataclass(frozen=True, kw_only=True)
class Exported:
    """An exported model on disk: its graphs and what `inference.yml` says."""

    folder: Path
    model_name: str
    labels: list[str]
    """Class names in label order."""
    threshold: float
    preprocess: Preprocess
    mask_frame: str
    """What the mask logits of the fast graph cover: the network input ("image") or the box ("box")."""
    mask_clip: bool
    """Whether masks end at their box."""
    tiling: Tiling | None = None
    """By which tiles it sees large pictures."""

    @property
    def onnx(self) -> Path | None:
        """The fast graph: boxes, scores, labels and low-resolution mask logits."""
        return self._existing("inference.onnx")

    @property
    def int8(self) -> Path | None:
        """The fast graph with 8-bit convolutions."""
        return self._existing("inference.int8.onnx")

    @property
    def program(self) -> Path | None:
        """Paddle's graph with full-size masks inside, in the new or the older format."""
        return self._existing("inference.json") or self._existing("inference.pdmodel")

    @property
    def parameters(self) -> Path | None:
        return self._existing("inference.pdiparams")

    def _existing(self, name: str) -> Path | None:
        path = self.folder / name
        return path if path.is_file() else None


def read_exported(folder: Path, *, model_name: str | None = None) -> Exported:
    """Read `inference.yml` in `folder`; with `model_name`, the folder must hold that model.

    Raises UserError that names file and key.
    """
    file = folder / "inference.yml"
    try:
        tree = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{folder}: not an exported model (no inference.yml); `seg-tune export` makes one") from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise UserError(f"{file}: not a readable YAML file: {' '.join(str(error).split())}") from None
    if not isinstance(tree, Mapping):
        raise UserError(f"{file}: must be a mapping with Preprocess and label_list")
    name = str(_typed(tree, "Global", Mapping, file, {}).get("model_name") or model_name or folder.name)
    if model_name is not None and name != model_name:
        raise UserError(f"{file}: Global.model_name: the folder holds {name}, the pipeline asks for {model_name}")
    fast_graph = _typed(tree, "FastGraph", Mapping, file, {})
    return Exported(
        folder=folder,
        model_name=name,
        labels=[str(label) for label in _typed(tree, "label_list", list, file)],
        threshold=float(_typed(tree, "draw_threshold", (int, float), file, 0.5)),
        preprocess=Preprocess(_typed(tree, "Preprocess", list, file), origin=str(file)),
        mask_frame=str(fast_graph.get("mask_frame", "image")),
        mask_clip=bool(fast_graph.get("mask_clip", False)),
        tiling=parse_tiling(tree.get("tiling"), origin=str(file)) or None,
    )


def _typed(tree: Mapping[str, Any], key: str, kind: Any, file: Path, default: Any = None) -> Any:
    value = tree.get(key, default)
    if not isinstance(value, kind):
        raise UserError(f"{file}: {key}: " + ("missing" if value is None else f"of the wrong kind ({value!r:.60})"))
    return value
