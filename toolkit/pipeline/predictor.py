"""A pipeline: from pictures to results, through an exported model."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from toolkit.data.tiling import detect_tiled
from toolkit.errors import UserError
from toolkit.pipeline.backends import load_backend
from toolkit.pipeline.config import PipelineConfig, load_pipeline_config
from toolkit.pipeline.exported import read_exported
from toolkit.pipeline.inputs import Picture, read_inputs
from toolkit.pipeline.result import Result
from toolkit.recipe import Tiling, parse_tiling


class Pipeline:
    """Instance segmentation with one exported model."""

    def __init__(
        self,
        config: PipelineConfig,
        *,
        device: str | None = None,
        engine: str | None = None,
        tiling: Tiling | Literal[False] | None = None,
    ) -> None:
        self.model = read_exported(config.model_dir, model_name=config.model_name)
        self.backend = load_backend(self.model, engine=engine, device=device or config.device)
        self.batch_size = config.batch_size
        self.threshold = self.model.threshold if config.threshold is None else config.threshold
        said = config.tiling if tiling is None else tiling
        self.tiling = self.model.tiling if said is None else said or None

    def predict(self, input: Any, threshold: float | None = None, *, batch_size: int | None = None) -> Iterator[Result]:
        """Yield a result for each picture of `input`; see `toolkit.pipeline.inputs.read_inputs` for what that may be.

        Args:
            threshold: least score of an instance; by default the config's, else the exported model's.
            batch_size: pictures, or tiles of one, that go through the model together; by default the config's.

        Raises UserError for an input that cannot be read.
        """
        yield from self.run(read_inputs(input), threshold=threshold, batch_size=batch_size)

    __call__ = predict

    def run(
        self, pictures: Iterable[Picture], *, threshold: float | None = None, batch_size: int | None = None
    ) -> Iterator[Result]:
        """Yield a result for each of `pictures`, which are read already; see `predict`."""
        waiting: deque[Picture] = deque()

        def pixels() -> Iterator[NDArray[np.uint8]]:
            for picture in pictures:
                waiting.append(picture)
                yield picture.rgb

        find = partial(self.backend, threshold=self.threshold if threshold is None else threshold)
        at_once = batch_size or self.batch_size
        for found in detect_tiled(find, pixels(), self.model.preprocess, self.tiling, at_once=at_once):
            yield Result(waiting.popleft(), found, self.model.labels)


def create_pipeline(
    pipeline: str | os.PathLike[str] | None = None,
    config: Mapping[str, Any] | None = None,
    device: str | None = None,
    use_hpip: bool | None = None,
    hpi_config: Mapping[str, Any] | None = None,
    *,
    engine: str | None = None,
    tiling: Mapping[str, Any] | Tiling | str | Literal[False] | None = None,
) -> Pipeline:
    """Load a pipeline; the arguments are PaddleX's.

    Args:
        pipeline: path of a pipeline config (YAML), folder of an exported model, or `instance_segmentation`, the newest
            run's exported model.
        config: the contents of such a file instead; wins over `pipeline`.
        device: `cpu` (default), `gpu:0`, `npu:0`, `xpu:0`, `mlu:0`; wins over the config.
        use_hpip, hpi_config: accepted for PaddleX's sake; the fast graph is used wherever it exists.
        engine: `onnxruntime` or `paddle`; chosen by itself if None.
        tiling: tiles that large pictures are seen in, as a recipe has them (`{"size": [640, 640]}`, or that as YAML);
            False: none. None: the config's, else those that the model was trained with.

    Raises UserError for a config or a model that cannot be read.
    """
    loaded = load_pipeline_config(pipeline if config is None else config)
    return Pipeline(loaded, device=device, engine=engine, tiling=parse_tiling(tiling, origin="create_pipeline"))


def predict_files(
    input: str | os.PathLike[str],
    *,
    pipeline: str | os.PathLike[str] | None = None,
    threshold: float | None = None,
    save_path: str | os.PathLike[str] | None = None,
    device: str | None = None,
    engine: str | None = None,
    tiling: str | None = None,
) -> int:
    """Predict on a picture, a folder or a URL; print a line for each picture, and save picture and JSON.

    In `save_path` the subfolders of a folder are kept. Pictures that cannot be read are named and passed over.

    Returns the number of pictures. Raises UserError in the end if some could not be read.
    """
    tiles = parse_tiling(tiling, origin="--tiling")
    loaded = create_pipeline(pipeline, device=device, engine=engine, tiling=tiles)
    unreadable: list[UserError] = []

    def report(error: UserError) -> None:
        print(f"error: {error}", file=sys.stderr)
        unreadable.append(error)

    done = 0
    used: set[Path] = set()
    for result in loaded.run(read_inputs(os.fspath(input), on_error=report), threshold=threshold):
        done += 1
        found = ", ".join(f"{box['label']} {box['score']:.2f}" for box in result["boxes"])
        print(f"{result['input_path']}: {len(result['boxes'])} instances" + (f": {found}" if found else ""))
        if save_path is not None:
            target = _target(result, Path(input), Path(save_path), used)
            result.save_to_json(f"{target}.json")
            result.save_to_img(f"{target}{result.img_suffix}")
    if save_path is not None and done:
        print(f"saved to {save_path}")
    if unreadable:
        raise UserError(f"{len(unreadable)} of {done + len(unreadable)} pictures could not be read")
    return done


def _target(result: Result, source: Path, folder: Path, used: set[Path]) -> Path:
    """Where a result goes, less its ending; pictures that differ in their ending alone do not share it."""
    if source.is_dir():
        folder = folder / Path(result["input_path"]).parent.relative_to(source)
    base = target = folder / f"{result.stem}_res"
    number = 2
    while target in used:
        target = base.with_name(f"{base.name}_{number}")
        number += 1
    used.add(target)
    return target
