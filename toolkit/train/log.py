"""What a run says: on the screen, in `train.log`, in `metrics.jsonl` and to VisualDL."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from toolkit.evaluate.ap import Metrics
from toolkit.places import home_for_libraries
from toolkit.run import Run

with home_for_libraries(".visualdl"):
    from visualdl import LogWriter


class Log:
    """The record of one run; a resumed run goes on writing to the same files.

    Args:
        step, epoch: how far the run has come; what `metrics.jsonl` has beyond that is taken out.
    """

    def __init__(self, run: Run, *, step: int = 0, epoch: int = 0) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._text = run.log.open("a", encoding="utf-8")
        _cut(run.metrics, step, epoch)
        self._metrics = run.metrics.open("a", encoding="utf-8")
        self._curves = LogWriter(logdir=str(run.visualdl), display_name=run.path.name)
        self._progress: Progress | None = None

    def say(self, line: str) -> None:
        """A line for people: screen and `train.log`."""
        self._console.print(line, markup=False)
        self._text.write(f"{datetime.now():%Y-%m-%d %H:%M:%S} {line}\n")
        self._text.flush()

    @contextmanager
    def epoch(self, number: int, *, epochs: int, steps: int, done: int) -> Iterator[Epoch]:
        """The progress bar of an epoch (`number` from 1); the time left is that of the whole run."""
        columns = (
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}  {task.fields[speed]} images/s  {task.fields[left]} left"),
        )
        with Progress(*columns, console=self._console, transient=True, disable=not self._console.is_terminal) as bar:
            task = bar.add_task("", total=steps, epoch=f"{number}/{epochs}", loss="-", speed="-", left="-")
            yield Epoch(self, bar, task, remaining=epochs * steps - done)

    def step(self, step: int, values: dict[str, float]) -> None:
        """Losses and the learning rate at a step."""
        self._record({"step": step, **values})
        for name, value in values.items():
            self._curve(f"train/{name}", value, step)

    def evaluation(self, step: int, epoch: int, metrics: Metrics) -> None:
        """The metrics after an epoch."""
        values = {"mask_ap": metrics.mask_ap, "box_ap": metrics.box_ap}
        self._record({"step": step, "epoch": epoch, **metrics.as_dict()})
        for name, value in values.items():
            self._curve(f"eval/{name}", value, step)
        for name, ap in metrics.mask_by_class.items():
            if ap is not None:
                self._curve(f"eval_class/{name}", ap, step)

    def pictures(self, step: int, pictures: Iterable[tuple[str, NDArray[np.uint8]]]) -> None:
        """Sample pictures, RGB `[h, w, 3]`, under their names."""
        for name, picture in pictures:
            if self._draws:
                self._curves.add_image(f"eval/{name}", picture, step)

    def close(self) -> None:
        if self._draws:
            self._curves.close()
        for file in (self._metrics, self._text):
            # What a full disk left in the buffer cannot be written now either.
            with contextlib.suppress(OSError):
                file.close()

    def _curve(self, name: str, value: float, step: int) -> None:
        if self._draws:
            self._curves.add_scalar(name, value, step)

    @property
    def _draws(self) -> bool:
        # A full disk ends VisualDL's thread, and then whoever writes to it waits for ever.
        alive: bool = self._curves._file_writer._async_writer._worker.is_alive()
        return alive

    def _record(self, values: dict[str, Any]) -> None:
        self._metrics.write(json.dumps(values) + "\n")
        self._metrics.flush()


class Silence(Log):
    """The log of the processes that leave the talking to the first one."""

    def __init__(self, run: Run) -> None:
        self._console = Console(quiet=True)

    def say(self, line: str) -> None: ...

    def step(self, step: int, values: dict[str, float]) -> None: ...

    def evaluation(self, step: int, epoch: int, metrics: Metrics) -> None: ...

    def pictures(self, step: int, pictures: Iterable[tuple[str, NDArray[np.uint8]]]) -> None: ...

    def close(self) -> None: ...


def _cut(metrics: Path, step: int, epoch: int) -> None:
    """Take out the steps after `step`, the evaluations after `epoch`, and a row that was not written to its end."""
    if not metrics.is_file():
        return
    lines = metrics.read_text(encoding="utf-8").splitlines(keepends=True)
    rows = [json.loads(line) if line.endswith("\n") else {"step": step + 1} for line in lines]
    kept = [line for line, row in zip(lines, rows, strict=True) if row["step"] <= step and row.get("epoch", 0) <= epoch]
    if kept != lines:
        beside = metrics.with_name(f".{metrics.name}.part")
        beside.write_text("".join(kept), encoding="utf-8")
        beside.replace(metrics)


class Epoch:
    """The progress of one epoch."""

    def __init__(self, log: Log, bar: Progress, task: Any, *, remaining: int) -> None:
        self._log, self._bar, self._task, self._remaining = log, bar, task, remaining
        self._start = time.perf_counter()
        self._steps = self._images = 0
        self._loss = 0.0

    def advance(self, step: int, values: dict[str, float], *, images: int) -> None:
        """One optimizer step done: number `step` of the run, on `images` pictures, with these losses."""
        self._steps += 1
        self._images += images
        self._loss += values["loss"]
        self._log.step(step, {**values, "images_per_s": round(self.images_per_s, 3)})
        seconds = (time.perf_counter() - self._start) / self._steps * (self._remaining - self._steps)
        left = timedelta(seconds=round(seconds))
        self._bar.update(self._task, advance=1, loss=f"{self.loss:.3f}", speed=f"{self.images_per_s:.1f}", left=left)

    @property
    def loss(self) -> float:
        """Mean over the epoch so far."""
        return self._loss / max(self._steps, 1)

    @property
    def images_per_s(self) -> float:
        return self._images / max(time.perf_counter() - self._start, 1e-9)
