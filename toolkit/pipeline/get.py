"""A pipeline config to begin with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from toolkit.errors import UserError
from toolkit.pipeline.config import DEFAULT, NAME, dump_pipeline_config, newest_export
from toolkit.pipeline.exported import read_exported


def write_pipeline_config(name: str, save_path: Path, *, may_replace: Callable[[Path], bool]) -> Path:
    """Write the config of the newest run's export or, where there is no run, PaddleX's own; returns the file.

    Args:
        name: `instance_segmentation`.
        save_path: a file that ends in `.yaml` or `.yml`, or a folder, which is made.
        may_replace: asked before a file is replaced.

    Raises UserError for another name, a run that is not exported, and a file that may not be replaced or written.
    """
    if name != NAME:
        raise UserError(f"pipeline {name}: unknown; there is {NAME}")
    folder = newest_export()
    if folder:
        exported = read_exported(folder)
        model_name, threshold = exported.model_name, exported.threshold
    else:
        model_name, threshold = DEFAULT, 0.5
    file = save_path if save_path.suffix in (".yaml", ".yml") else save_path / f"{NAME}.yaml"
    if file.exists() and not may_replace(file):
        raise UserError(f"{file}: is there already, and stays; -y replaces it, --save-path names another place")
    text = dump_pipeline_config(model_name=model_name, model_dir=folder, threshold=threshold)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{file}: cannot be written: {error.strerror or error}") from None
    print(f"pipeline config of {folder or f'PaddleX with {model_name}'} written to {file}")
    if not folder:
        print("no run in ./output: set model_dir to an exported model, or train and export one first")
    return file
