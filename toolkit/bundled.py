"""What ships with the package: inside it where it is installed, beside it in a checkout."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent


def recipes_dir() -> Path:
    """The folder of the recipes."""
    return _first(_PACKAGE / "_recipes", _PACKAGE.parent / "recipes")


def sample_dataset() -> Path:
    """The folder of the sample dataset."""
    return _first(_PACKAGE / "_shapes", _PACKAGE.parent / "datasets" / "shapes")


def licence() -> Path:
    """The text of the package's licence."""
    return _first(_PACKAGE / "_LICENSE", _PACKAGE.parent / "LICENSE")


def _first(installed: Path, checkout: Path) -> Path:
    return installed if installed.exists() else checkout
