"""What happens around a run does not end it, or does not cost more than a resume."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.pictures import write_dataset
from tests.train.test_kills import Lives
from toolkit.data import loader, workers
from toolkit.models import ppyoloe_seg
from toolkit.run import Run
from toolkit.train import fit as fit_module
from toolkit.train.start import start_training
from toolkit.weights.load import read_weights


def train(data: Path, output: Path, **more: Any) -> Run:
    overrides = {
        "model.options": ppyoloe_seg.TINY,
        "data.path": str(data),
        "data.input_size": [64, 64],
        "data.workers": 2,
        "train.epochs": 2,
        "train.batch_size": 2,
        "train.pretrained": "none",
        **more,
    }
    run, result = start_training("PP-YOLOE_seg-S", overrides=overrides, device="cpu", output=output)
    assert result["ended"] == "completed"
    assert result["steps"] == 8
    return run


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("undisturbed")
    return train(write_dataset(folder / "data"), folder / "output", **{"data.workers": 0})


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "data")


def assert_same_weights(one: Run, other: Run) -> None:
    first, second = read_weights(one.best_weights), read_weights(other.best_weights)
    assert all(np.array_equal(first[name], second[name]) for name in first)


def at_batch(number: int, act: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0
    train_step = fit_module.train_step

    def acting(*arguments: Any, **named: Any) -> dict[str, float]:
        nonlocal calls
        calls += 1
        if calls == number:
            act()
        return train_step(*arguments, **named)

    monkeypatch.setattr(fit_module, "train_step", acting)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_picture_that_breaks_meanwhile_is_named_and_left_out(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    picture = data / "images" / "train 3.png"

    def damage() -> None:
        content = bytearray(picture.read_bytes())
        content[60:-20] = bytes(len(content) - 80)  # beginning and end look well
        picture.write_bytes(content)

    at_batch(3, damage, monkeypatch)
    run = train(data, tmp_path / "output", **{"data.workers": workers})
    said = run.log.read_text(encoding="utf-8")
    assert said.count("train 3.png: damaged picture") == 1
    assert said.count("trained without it") == 1


def test_a_worker_that_is_killed_changes_nothing(
    data: Path, undisturbed: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pools: list[ProcessPoolExecutor] = []

    def watched(*arguments: Any, **keywords: Any) -> ProcessPoolExecutor:
        pools.append(ProcessPoolExecutor(*arguments, **keywords))
        return pools[-1]

    def kill() -> None:
        os.kill(next(iter(pools[-1]._processes)), signal.SIGKILL)

    monkeypatch.setattr(workers, "ProcessPoolExecutor", watched)
    at_batch(3, kill, monkeypatch)
    run = train(data, tmp_path / "output")
    assert len(pools) == 2
    assert "ended from outside" in run.log.read_text(encoding="utf-8")
    assert_same_weights(run, undisturbed)


class WithoutSharedMemory(loader._BatchMaker):
    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        workers.SHARED_MEMORY = Path("/nowhere")


def test_without_shared_memory_batches_come_by_pipe(
    data: Path, undisturbed: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parcels: list[workers.Parcel] = []
    unpack = workers._unpack
    monkeypatch.setattr(workers, "_unpack", lambda parcel: parcels.append(parcel) or unpack(parcel))
    monkeypatch.setattr(workers, "SHARED_MEMORY", Path("/nowhere"))
    monkeypatch.setattr(loader, "_BatchMaker", WithoutSharedMemory)
    run = train(data, tmp_path / "output")
    assert parcels
    assert all(parcel.block is None for parcel in parcels)
    assert_same_weights(run, undisturbed)


def test_a_full_disk_costs_no_more_than_a_resume(tmp_path: Path) -> None:
    lives = Lives(tmp_path, "PP-YOLOE_seg-S")
    checkpoint = Run.find(None, output=tmp_path / "straight").checkpoint.stat().st_size
    ends, said = lives.run("full", [{"room": checkpoint // 2}, {"room": checkpoint // 2, "from": 5}])
    assert ends == ["exit 2", "exit 2", "exit 0"]
    assert said.count("checkpoint.pdckpt: cannot be written: File too large") == 2
    lives.assert_as_if_nothing_had_happened("full")
