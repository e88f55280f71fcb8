"""One model by its name, without a pipeline config, as `paddlex.create_model` has it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from toolkit.pipeline.config import PipelineConfig, find_model, read_hpi_config
from toolkit.pipeline.predictor import Pipeline, Threshold
from toolkit.pipeline.result import Result


class Model:
    """A `Pipeline` whose `predict` has the arguments of PaddleX's models."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline

    def predict(
        self, input: Any, batch_size: int | None = None, *, threshold: Threshold | None = None
    ) -> Iterator[Result]:
        """As `Pipeline.predict`."""
        return self.pipeline.predict(input, threshold, batch_size=batch_size)

    __call__ = predict


def create_model(
    model_name: str,
    model_dir: str | os.PathLike[str] | None = None,
    *,
    batch_size: int = 1,
    threshold: float | None = None,
    device: str | None = None,
    use_hpip: bool = False,
    hpi_config: Mapping[str, Any] | str | None = None,
    engine: str | None = None,
) -> Model:
    """Load one model; the arguments are PaddleX's.

    Args:
        model_name: one of the sixteen that `seg-tune models` lists.
        model_dir: folder of the exported model; by default the one that PaddleX has downloaded.
        batch_size, threshold: where a call does not say; `threshold` by default that of the exported model.
        device, use_hpip, hpi_config, engine: see `create_pipeline`.

    Raises UserError for a name that is unknown, and a folder that cannot be read or holds another model.
    """
    where = os.fspath(model_dir) if model_dir is not None else None
    config = PipelineConfig(
        model_name=model_name,
        model_dir=find_model(model_name, where, origin="create_model", beside=Path()),
        batch_size=batch_size,
        threshold=threshold,
    )
    hpi = None if hpi_config is None else read_hpi_config(hpi_config)
    return Model(Pipeline(config, device=device, engine=engine, use_hpip=use_hpip, hpi_config=hpi))
