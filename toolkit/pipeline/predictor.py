"""A pipeline: from pictures to results, through an exported model."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter, ValidationError

from toolkit import cores
from toolkit.data.preprocess import Prepared
from toolkit.data.tiling import detect_tiled
from toolkit.devices import split_devices
from toolkit.errors import UserError
from toolkit.pipeline.backends import Backend, load_backend
from toolkit.pipeline.config import HpiConfig, PipelineConfig, load_pipeline_config, read_hpi_config
from toolkit.pipeline.exported import read_exported
from toolkit.pipeline.inputs import Picture, Source, list_inputs
from toolkit.pipeline.ordered import ordered
from toolkit.pipeline.result import Result
from toolkit.pipeline.sessions import Sessions, load_sessions, share_of_cores
from toolkit.places import require_writable
from toolkit.recipe import Tiling, parse_tiling
from toolkit.stages import stage

READERS = 2
"""Pictures that are read and prepared while others are in the network."""

Network = Backend | Sessions
Share = Annotated[float, Field(ge=0, le=1)]
Threshold = Share | Mapping[str, Share]


class Pipeline:
    """Instance segmentation with one exported model."""

    def __init__(
        self,
        config: PipelineConfig,
        *,
        device: str | None = None,
        engine: str | None = None,
        use_hpip: bool | None = None,
        hpi_config: HpiConfig | None = None,
        tiling: Tiling | Literal[False] | None = None,
    ) -> None:
        self.model = read_exported(config.model_dir, model_name=config.model_name)
        self._devices = split_devices(device or config.device or "cpu")
        self.backend = load_backend(
            self.model,
            engine=engine,
            device=self._devices[0],
            threads=share_of_cores(self._devices),
            use_hpip=config.use_hpip if use_hpip is None else use_hpip,
            hpi_config=hpi_config or config.hpi_config,
        )
        self.batch_size = config.batch_size
        self.threshold: Threshold = self.model.threshold if config.threshold is None else config.threshold
        self._usual = self._least(self.threshold, np.full(len(self.model.labels), self.model.threshold, np.float32))
        said = config.tiling if tiling is None else tiling
        self.tiling = self.model.tiling if said is None else said or None

    def predict(
        self, input: Any, threshold: Threshold | None = None, *, batch_size: int | None = None
    ) -> Iterator[Result]:
        """Yield a result for each picture of `input`; see `toolkit.pipeline.inputs.list_inputs` for what that may be.

        Of several pictures, some are worked on at a time, a few ahead of what was asked for. An iterator that is not
        used to its end lets go of them.

        Args:
            threshold: least score of an instance, for all classes or by name of class; by default, and for classes
                that it does not name, the config's, else the exported model's.
            batch_size: pictures, or tiles of one, that go through the model together; by default the config's.

        Raises UserError for an input that cannot be read, in its place.
        """
        for outcome in self.stream(list_inputs(input), threshold=threshold, batch_size=batch_size):
            if isinstance(outcome, UserError):
                raise outcome
            yield outcome

    __call__ = predict

    def stream(
        self, sources: Iterable[Source], *, threshold: Threshold | None = None, batch_size: int | None = None
    ) -> Iterator[Result | UserError]:
        """Yield, for each of `sources` and in their order, its result, or why it cannot be read; see `predict`."""
        size = self.batch_size if batch_size is None else batch_size
        if size < 1:
            raise UserError(f"batch_size: must be at least 1 (is: {size})")
        work = partial(self._outcomes, threshold=threshold, at_once=size)
        batches = _in_batches(sources, size)
        # The first ones by themselves: a single picture then has all cores and waits for nothing else to be loaded.
        for first in islice(batches, 1):
            yield from work(first, network=self.backend)
        for second in islice(batches, 1):
            sessions = self.sessions
            batches = chain([second], batches)
            for outcomes in ordered(partial(work, network=sessions), batches, threads=sessions.count + READERS):
                yield from outcomes

    @cached_property
    def sessions(self) -> Sessions:
        """The loaded models for several pictures at a time; loaded when first asked for."""
        return load_sessions(self.model, self.backend, devices=self._devices)

    def find(
        self,
        pictures: Sequence[Picture],
        *,
        threshold: Threshold | None = None,
        network: Network | None = None,
        at_once: int | None = None,
    ) -> list[Result]:
        """The results of `pictures`, which are read already, by this thread alone; see `predict`.

        Args:
            network: what they go through, by default the first of the loaded models; `at_once`: so many together.
        """
        asked = self.threshold if threshold is None else threshold
        least = self._least(asked, self._usual)
        run = partial(network or self.backend, threshold=float(least.min()))
        pixels = [picture.rgb for picture in pictures]
        found = list(detect_tiled(run, pixels, self._prepare, self.tiling, at_once=at_once or self.batch_size))
        if isinstance(asked, Mapping):
            found = [each.kept(each.scores >= least[each.labels]) for each in found]
        with stage("masks"):
            return [Result(picture, each, self.model.labels) for picture, each in zip(pictures, found, strict=True)]

    def _least(self, threshold: Threshold, otherwise: NDArray[np.float32]) -> NDArray[np.float32]:
        """The least score of each class `[C]`; `otherwise` `[C]` are those of classes that are not named."""
        labels = self.model.labels
        if not isinstance(threshold, Mapping):
            return np.full(len(labels), threshold, np.float32)
        if unknown := set(threshold) - set(labels):
            raise UserError(f"threshold: no class {sorted(unknown)[0]}; there are {', '.join(labels)}")
        return np.array([threshold.get(label, otherwise[i]) for i, label in enumerate(labels)], np.float32)

    def _outcomes(
        self, batch: Sequence[Source], *, network: Network, threshold: Threshold | None, at_once: int
    ) -> list[Result | UserError]:
        pictures = [_read(source) for source in batch]
        readable = [picture for picture in pictures if isinstance(picture, Picture)]
        results = iter(self.find(readable, threshold=threshold, network=network, at_once=at_once))
        return [picture if isinstance(picture, UserError) else next(results) for picture in pictures]

    def _prepare(self, rgb: NDArray[np.uint8]) -> Prepared:
        with stage("prepare"):
            return self.model.preprocess(rgb)


def _in_batches(sources: Iterable[Source], size: int) -> Iterator[list[Source]]:
    remaining = iter(sources)
    while batch := list(islice(remaining, size)):
        yield batch


def _read(source: Source) -> Picture | UserError:
    try:
        with stage("read"):
            return source.read()
    except UserError as error:
        return error


def create_pipeline(
    pipeline: str | os.PathLike[str] | None = None,
    config: Mapping[str, Any] | None = None,
    device: str | None = None,
    use_hpip: bool | None = None,
    hpi_config: Mapping[str, Any] | str | None = None,
    *,
    engine: str | None = None,
    tiling: Mapping[str, Any] | Tiling | str | Literal[False] | None = None,
) -> Pipeline:
    """Load a pipeline; the arguments are PaddleX's.

    Args:
        pipeline: path of a pipeline config (YAML), folder of an exported model, or `instance_segmentation`, the newest
            run's exported model.
        config: the contents of such a file instead; wins over `pipeline`.
        device: `cpu` (default), `gpu:0`, `npu:0`, `xpu:0`, `mlu:0`, or several, `gpu:0,1` or `cpu:2`, which take the
            pictures in turn; wins over the config.
        use_hpip: whether engines of lower precision (bf16, int8) may run, as far as they agree with the trained model;
            wins over the config.
        hpi_config: which of them, `{"backend": "openvino", "backend_config": {"precision": "bf16"}}`, as a mapping or
            as text; wins over the config.
        engine: one of `toolkit.pipeline.backends.ENGINES`; `auto` or None: the fastest exact one.
        tiling: tiles that large pictures are seen in, as a recipe has them (`{"size": [640, 640]}`, or that as YAML);
            False: none. None: the config's, else those that the model was trained with.

    Raises UserError for a config or a model that cannot be read.
    """
    return Pipeline(
        load_pipeline_config(pipeline if config is None else config),
        device=device,
        engine=engine,
        use_hpip=use_hpip,
        hpi_config=None if hpi_config is None else read_hpi_config(hpi_config),
        tiling=parse_tiling(tiling, origin="create_pipeline"),
    )


def predict_files(
    input: str | os.PathLike[str],
    *,
    pipeline: str | os.PathLike[str] | None = None,
    threshold: Threshold | str | None = None,
    save_path: str | os.PathLike[str] | None = None,
    device: str | None = None,
    engine: str | None = None,
    use_hpip: bool | None = None,
    hpi_config: Mapping[str, Any] | str | None = None,
    tiling: str | None = None,
) -> int:
    """Predict on a picture, PDF or video, a folder or a URL; print a line for each picture, and save picture and JSON.

    In `save_path` the subfolders of a folder are kept. Pictures that cannot be read are named and passed over.

    Args:
        threshold: as of `Pipeline.predict`, or as text: a number, or a YAML mapping.
        The others are those of `create_pipeline`.

    Returns the number of pictures. Raises UserError in the end if some could not be read.
    """
    tiles = parse_tiling(tiling, origin="--tiling")
    if save_path is not None and Path(save_path).exists() and not Path(save_path).is_dir():
        raise UserError(f"--save-path {save_path}: is a file; name a folder")
    if save_path is not None:
        require_writable(Path(save_path), advice="choose another folder with --save-path")
    least = _parse_threshold(threshold) if isinstance(threshold, str) else threshold
    loaded = create_pipeline(
        pipeline, device=device, use_hpip=use_hpip, hpi_config=hpi_config, engine=engine, tiling=tiles
    )
    source = Path(input)
    used: set[str] = set()

    def with_targets() -> Iterator[tuple[Result | UserError, str | None]]:
        for outcome in loaded.stream(list_inputs(os.fspath(input)), threshold=least):
            if isinstance(outcome, UserError):
                if not source.is_dir():
                    raise outcome
                yield outcome, None
            else:
                yield outcome, _target(outcome, source, Path(save_path), used) if save_path is not None else None

    done = unreadable = 0
    for outcome in ordered(_save, with_targets(), threads=cores()):
        if isinstance(outcome, UserError):
            print(f"error: {outcome}", file=sys.stderr)
            unreadable += 1
        else:
            print(outcome)
            done += 1
    if save_path is not None and done:
        print(f"saved to {save_path}")
    if unreadable:
        raise UserError(f"{unreadable} of {done + unreadable} pictures could not be read")
    return done


def _parse_threshold(text: str) -> Threshold:
    try:
        return TypeAdapter(Threshold, config={"strict": True}).validate_python(yaml.safe_load(text))
    except (yaml.YAMLError, ValidationError):
        said = "must be a number from 0 to 1, or such numbers by class as in '{cat: 0.3}'"
        raise UserError(f"--threshold {text}: {said}") from None


def _save(pair: tuple[Result | UserError, str | None]) -> str | UserError:
    """Save a result where it has a target; returns the line that tells of it."""
    outcome, target = pair
    if isinstance(outcome, UserError):
        return outcome
    if target is not None:
        outcome.save_to_json(f"{target}.json")
        outcome.save_to_img(f"{target}{outcome.img_suffix}")
    boxes = outcome["boxes"]
    found = ", ".join(f"{box['label']} {box['score']:.2f}" for box in boxes)
    page = "" if outcome["page_index"] is None else f" [{outcome['page_index']}]"
    return f"{outcome['input_path']}{page}: {len(boxes)} instances" + (f": {found}" if found else "")


def _target(result: Result, source: Path, folder: Path, used: set[str]) -> str:
    """Where a result goes, less its ending; pictures that differ in their ending alone do not share it."""
    if source.is_dir():
        folder = folder / Path(result["input_path"]).parent.relative_to(source)
    base = target = str(folder / f"{result.stem}_res")
    number = 2
    while target in used:
        target = f"{base}_{number}"
        number += 1
    used.add(target)
    return target
