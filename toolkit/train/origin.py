"""Where a run comes from: the weights it began with, the data, and the code."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import toolkit
from toolkit.run import Run, recipe_beside
from toolkit.weights.fetch import sha256_of


def write_origin(run: Run, *, weights: Path | None, data: Mapping[str, Any]) -> None:
    """Write `origin.json`: name and hash of the weights, `identity` of the data, version of the code."""
    tree = {"weights": _parent(weights) if weights else None, "data": data, "code": code_version()}
    run.origin_file.write_text(json.dumps(tree, indent=2, ensure_ascii=False), encoding="utf-8")


def _parent(weights: Path) -> dict[str, str]:
    recipe = recipe_beside(weights)
    # The folder of a run says more than best_model.pdparams.
    name = f"{recipe.parent.name}/{weights.name}" if recipe else weights.name
    return {"name": name, "sha256": sha256_of(weights)}


def code_version() -> str:
    """The package's version; in a checkout its commit too, marked where files differ from it."""
    root = Path(toolkit.__file__).parents[1]
    if (root / ".git").exists():
        command = ["git", "-C", str(root), "describe", "--always", "--abbrev=12", "--dirty=, changed", "--exclude=*"]
        with suppress(OSError, subprocess.SubprocessError):
            said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
            return f"{toolkit.__version__} ({said})"
    return toolkit.__version__
