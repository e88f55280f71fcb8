"""The folder of a training run: where each thing lies, and how the newest is found."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path

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
    def checkpoint(self) -> Path:
        """Everything that is needed to go on."""
        return self.path / "last" / "checkpoint.pdckpt"

    @property
    def result(self) -> Path:
        return self.path / "train_result.json"

    @property
    def evaluation(self) -> Path:
        return self.path / "evaluate_result.json"

    def recipe(self) -> Recipe:
        return load_recipe(self.recipe_file)

    @classmethod
    def create(cls, output: Path, recipe: Recipe) -> Run:
        """Make a new folder with the resolved recipe in it, and let `output/latest` point at it."""
        stem = f"{recipe.model.name}-{time.strftime('%Y%m%d-%H%M%S')}"
        for suffix in ("", *(f"-{i}" for i in range(2, 100))):
            with contextlib.suppress(FileExistsError):
                path = output / (stem + suffix)
                path.mkdir(parents=True)
                break
        else:
            raise UserError(f"{output}: too many runs named {stem}; choose another --output")
        run = cls(path)
        run.best_weights.parent.mkdir()
        run.checkpoint.parent.mkdir()
        run.recipe_file.write_text(dump_recipe(recipe), encoding="utf-8")
        _point(output / "latest", path.name)
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


def _point(link: Path, name: str) -> None:
    link.unlink(missing_ok=True)
    try:
        link.symlink_to(name, target_is_directory=True)
    except OSError:
        # Windows allows links to administrators only; a text file serves as well.
        link.write_text(name, encoding="utf-8")


def _target(link: Path) -> Path | None:
    if link.is_dir():
        return link.resolve()
    if link.is_file():
        return link.parent / link.read_text(encoding="utf-8").strip()
    return None
