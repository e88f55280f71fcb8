"""Thresholds by class, written into a pipeline config."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from toolkit.errors import UserError
from toolkit.pipeline.config import load_pipeline_config, read_tree
from toolkit.pipeline.exported import read_exported
from toolkit.recipe import dump_yaml


def threshold_writer(config: Path) -> Callable[[Mapping[str, float | None]], None]:
    """What writes thresholds by name of class into the pipeline config, in place of those that it has.

    Classes with None keep what the config says of them. All of it but comments stays.

    Raises UserError if `config` is not a config of a model that is there; the writer, if its classes are others.
    """
    known = load_pipeline_config(config)
    labels = read_exported(known.model_dir, model_name=known.model_name).labels

    def write(thresholds: Mapping[str, float | None]) -> None:
        if unknown := set(thresholds) - set(labels):
            raise UserError(f"{config}: its model has no class {min(unknown)}; there are {', '.join(labels)}")
        before = known.threshold if isinstance(known.threshold, Mapping) else dict.fromkeys(labels, known.threshold)
        named = {label: thresholds.get(label) for label in labels}
        merged = {label: before.get(label) if one is None else one for label, one in named.items()}
        tree: Any = read_tree(config)
        section = tree["Pipeline"] if "Pipeline" in tree else tree["SubModules"]["InstanceSegmentation"]
        section["threshold"] = {label: one for label, one in merged.items() if one is not None}
        beside = config.with_name(f".{config.name}.part")
        try:
            beside.write_text(dump_yaml(tree), encoding="utf-8")
            beside.replace(config)
        except OSError as error:
            raise UserError(f"{config}: cannot be written: {error.strerror or error}") from None
        print(f"thresholds of {sum(one is not None for one in named.values())} classes written to {config}")

    return write
