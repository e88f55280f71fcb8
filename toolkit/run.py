"""The folder of a training run: where each thing lies, and how the newest is found."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.errors import UserError
from toolkit.recipe import Recipe, dump_recipe, load_recipe


@dataclass(frozen=True)
class Run:
    """`output/<model>-<time>/` and what it holds."""

    path: Path

    @property
    def recipe_file(self) -> Path:
        return self.path / "recipe.yaml"

    @property
    def log(self) -> Path:
        return self.path / "train.log"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def visualdl(self) -> Path:
        return self.path / "vdl"

    @property
    def best_weights(self) -> Path:
        return self.path / "best_model" / "best_model.pdparams"

    @property
    def best_safetensors(self) -> Path:
        """The same weights for other frameworks, written when the run has ended."""
        return self.best_weights.with_suffix(".safetensors")

    @property
    def checkpoint(self) -> Path:
        """Everything that is needed to go on."""
        return self.path / "last" / "checkpoint.pdckpt"

    @property
    def result(self) -> Path:
        return self.path / "train_result.json"

    @property
    def evaluation(self) -> Path:
        return self.path / "evaluate_result.json"

    @property
    def origin_file(self) -> Path:
        return self.path / "origin.json"

    def origin(self) -> dict[str, Any]:
        """What the run came from, as `toolkit.train.origin` wrote it; empty for runs of versions before that."""
        try:
            tree = json.loads(self.origin_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return tree if isinstance(tree, dict) else {}

    @property
    def ended(self) -> str | None:
        """How the run ended, as its `train_result.json` says; None for one that runs or was killed."""
        try:
            said = json.loads(self.result.read_text(encoding="utf-8")).get("ended")
        except (OSError, ValueError, AttributeError):
            return None
        return str(said)

    def recipe(self) -> Recipe:
        return load_recipe(self.recipe_file)

    @classmethod
    def create(cls, output: Path, recipe: Recipe) -> Run:
        """Make a new folder with the resolved recipe in it, and let `output/latest` point at it."""
        stem = f"{recipe.model.name}-{time.strftime('%Y%m%d-%H%M%S')}"
        try:
            output.mkdir(parents=True, exist_ok=True)
            # Made beside and renamed, so that no folder is ever a run in part.
            made = cls(Path(tempfile.mkdtemp(prefix=".new-run-", dir=output)))
            try:
                made.path.chmod(0o777 & ~_umask())
                made.best_weights.parent.mkdir()
                made.checkpoint.parent.mkdir()
                made.recipe_file.write_text(dump_recipe(recipe), encoding="utf-8")
                run = cls(_rename(made.path, stem))
            except BaseException:
                shutil.rmtree(made.path, ignore_errors=True)
                raise
            _point(output / "latest", run.path.name)
        except OSError as error:
            raise UserError(
                f"{output}: no run can be written here: {error.strerror or error}; --output names another folder"
            ) from None
        return run

    @classmethod
    def find(cls, path: Path | None, *, output: Path = Path("output")) -> Run:
        """The run at `path`, or the newest of `output`.

        Raises UserError where there is none.
        """
        if path is None:
            path = _target(output / "latest")
            if path is None:
                raise UserError(f"{output}/latest: no run yet; train one with `seg-tune train`, or name one with --run")
        if not (path / "recipe.yaml").is_file():
            raise UserError(f"{path}: not the folder of a run (it has no recipe.yaml)")
        return cls(path)


def recipe_beside(weights: Path) -> Path | None:
    """The recipe of the run that `weights` belongs to, if it lies in one."""
    for folder in list(weights.resolve().parents)[:2]:
        if (folder / "recipe.yaml").is_file():
            return folder / "recipe.yaml"
    return None


def _rename(folder: Path, stem: str) -> Path:
    for suffix in ("", *(f"-{i}" for i in range(2, 100))):
        path = folder.with_name(stem + suffix)
        # An empty folder would be replaced, a file be in the way.
        if not path.exists():
            with contextlib.suppress(FileExistsError):
                return folder.rename(path)
    raise UserError(f"{folder.parent}: too many runs named {stem}; choose another --output")


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _point(link: Path, name: str) -> None:
    beside = link.with_name(f".{link.name}-{name}")
    beside.unlink(missing_ok=True)
    try:
        beside.symlink_to(name, target_is_directory=True)
    except OSError:
        # Windows allows links to administrators only; a text file serves as well.
        beside.write_text(name, encoding="utf-8")
    beside.replace(link)


def _target(link: Path) -> Path | None:
    if link.is_dir():
        return link.resolve()
    if link.is_file():
        return link.parent / link.read_text(encoding="utf-8").strip()
    return None
