"""How long each stage takes on the way from a file to its masks, engine by engine."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from toolkit import cores
from toolkit.bundled import sample_dataset
from toolkit.devices import split_devices
from toolkit.errors import UserError
from toolkit.pipeline.backends import ENGINES
from toolkit.pipeline.certificate import read_agreements
from toolkit.pipeline.config import PipelineConfig, load_pipeline_config
from toolkit.pipeline.exported import read_exported
from toolkit.pipeline.inputs import Source, list_inputs
from toolkit.pipeline.predictor import Pipeline
from toolkit.stages import stage, stages

STAGES = ("read", "prepare", "network", "masks", "save")
TOTAL = "file to RLE"
"""All stages but the saving."""


@dataclass(frozen=True)
class Spread:
    """Milliseconds a picture."""

    median: float
    low: float
    """A quarter of the runs took less; `high`: a quarter took more."""
    high: float


@dataclass(frozen=True)
class Benchmark:
    """What `seg-tune benchmark` measures."""

    model: str
    device: str
    cores: int
    pictures: int
    repetitions: int
    instances: float
    """Of a picture, on average."""
    engines: dict[str, dict[str, Spread]]
    """For each engine its stages and their total."""
    left_out: dict[str, str]
    """Engines that do not run here, and why."""


def benchmark(
    pipeline: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    *,
    input: str | os.PathLike[str] | None = None,
    engines: Sequence[str] = (),
    device: str | None = None,
    threshold: float | None = None,
    pictures: int = 8,
    repetitions: int = 5,
    json_file: Path | None = None,
) -> Benchmark:
    """Measure the stages of a pipeline, one picture at a time, and print them.

    Engines take turns picture by picture, so that whatever else the machine does slows all alike.

    Args:
        pipeline: see `toolkit.pipeline.config.load_pipeline_config`.
        input: picture, folder or URL; by default the bundled sample.
        engines: by default all that run here.
        pictures: how many of the input are taken, its first ones.
        repetitions: of each picture, after one run that does not count.
        json_file: where the figures are written too.

    Raises UserError for what cannot be read, and for an engine that is named and does not run here.
    """
    if json_file is not None and (json_file.is_dir() or not json_file.parent.is_dir()):
        raise UserError(f"{json_file}: not a place for a file; name one in an existing folder")
    config = load_pipeline_config(pipeline)
    console = Console(highlight=False, soft_wrap=True)
    loaded, left_out = _load(config, engines, device)
    sources = list(islice(list_inputs(sample_dataset() / "images" if input is None else os.fspath(input)), pictures))

    runs: dict[str, list[dict[str, float]]] = {engine: [] for engine in loaded}
    instances = 0
    with TemporaryDirectory() as folder:
        for repetition in range(1 + repetitions):
            for source in sources:
                for engine, one in loaded.items():
                    seconds, found = _run(one, source, threshold, Path(folder))
                    if repetition:
                        runs[engine].append(seconds)
                        instances += found
    measured = Benchmark(
        model=next(iter(loaded.values())).model.model_name,
        device=device or config.device or "cpu",
        cores=cores(),
        pictures=len(sources),
        repetitions=repetitions,
        instances=round(instances / sum(map(len, runs.values())), 1),
        engines={engine: {name: _spread(each, name) for name in (*STAGES, TOTAL)} for engine, each in runs.items()},
        left_out=left_out,
    )
    _show(measured, console)
    if json_file is not None:
        json_file.write_text(json.dumps({**asdict(measured), "unit": "ms"}, indent=2) + "\n", encoding="utf-8")
    return measured


def _load(
    config: PipelineConfig, engines: Sequence[str], device: str | None
) -> tuple[dict[str, Pipeline], dict[str, str]]:
    if engines:
        return {engine: Pipeline(config, device=device, engine=engine) for engine in engines}, {}
    kind = split_devices(device or config.device or "cpu")[0].partition(":")[0].replace("auto", "cpu")
    tried = {name: _if_possible(config, name, device) for name, engine in ENGINES.items() if kind in engine.devices}
    loaded = {engine: each for engine, each in tried.items() if isinstance(each, Pipeline)}
    left_out = {engine: str(each) for engine, each in tried.items() if isinstance(each, UserError)}
    if not loaded:
        raise UserError(f"{config.model_dir}: no engine runs it here: {'; '.join(left_out.values())}")
    return loaded, left_out


def _if_possible(config: PipelineConfig, engine: str, device: str | None) -> Pipeline | UserError:
    if engine == "paddle_onednn" and not read_agreements(read_exported(config.model_dir)):
        return UserError(f"{config.model_dir} has no certificate; oneDNN ends the process on some exports")
    try:
        return Pipeline(config, device=device, engine=engine)
    except UserError as error:
        return error


def _run(pipeline: Pipeline, source: Source, threshold: float | None, folder: Path) -> tuple[dict[str, float], int]:
    with stages() as seconds:
        start = time.perf_counter()
        for outcome in pipeline.stream([source], threshold=threshold):
            if isinstance(outcome, UserError):
                raise outcome
            with stage("masks"):
                found = len(outcome.to_rle())
            seconds[TOTAL] = time.perf_counter() - start
            with stage("save"):
                outcome.save_all(folder)
    return seconds, found


def _spread(runs: Sequence[Mapping[str, float]], name: str) -> Spread:
    low, median, high = (round(1000 * float(q), 3) for q in np.quantile([run[name] for run in runs], (0.25, 0.5, 0.75)))
    return Spread(median=median, low=low, high=high)


def _show(measured: Benchmark, console: Console) -> None:
    console.print(
        f"{measured.model} on {measured.device}, {measured.cores} cores: {measured.pictures} pictures, "
        f"{measured.repetitions} times each, {measured.instances} instances a picture"
    )
    table = Table("ms a picture", caption="median (quarter of the runs below - above), share of the median total")
    for engine in measured.engines:
        table.add_column(engine, justify="right")
    for name in (*STAGES, TOTAL):
        if name == TOTAL:
            table.add_section()
        cells = []
        for spreads in measured.engines.values():
            each, total = spreads[name], spreads[TOTAL].median
            share = "" if name in ("save", TOTAL) else f" {each.median / total:4.0%}"
            cells.append(f"{each.median:.1f} ({each.low:.1f} - {each.high:.1f}){share}")
        table.add_row(name, *cells)
    console.print(table)
    totals = {engine: spreads[TOTAL].median for engine, spreads in measured.engines.items()}
    best = min(totals, key=totals.__getitem__)
    stages_of_best = {name: measured.engines[best][name].median for name in STAGES[:-1]}
    most = max(stages_of_best, key=stages_of_best.__getitem__)
    others = [f"{ms / totals[best]:.1f} times as fast as {engine}" for engine, ms in totals.items() if engine != best]
    console.print(
        f"{best} is the fastest{': ' if others else ''}{', '.join(others)}; "
        f"{stages_of_best[most] / totals[best]:.0%} of its time goes into the stage {most}"
    )
    for engine, reason in measured.left_out.items():
        console.print(f"without {engine}: {reason}")
