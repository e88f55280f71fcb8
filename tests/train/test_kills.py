"""A run that is killed, wherever that may be, can be resumed and ends with the same bits as one that was not."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.pictures import write_dataset
from tests.train.lives import POINTS
from toolkit.models import mask_rtdetr, ppyoloe_seg
from toolkit.run import Run
from toolkit.weights.load import read_checkpoint, read_weights

MODELS = {"PP-YOLOE_seg-S": ppyoloe_seg.TINY, "Mask-RT-DETR-S": mask_rtdetr.TINY}


class Lives:
    """Runs of one model on one dataset, with threads and seed pinned, in a process of their own."""

    def __init__(self, folder: Path, model: str) -> None:
        self.folder, self.model = folder, model
        self.overrides = {
            "model.options": MODELS[model],
            "data.path": str(write_dataset(folder / "data")),
            "data.input_size": [64, 64],
            "data.train_sizes": [],
            "data.workers": 0,
            "train.epochs": 2,
            "train.batch_size": 2,
            "train.pretrained": "none",
            "train.save_every_minutes": 0,
        }
        assert self.run("straight", [])[0] == ["exit 0"]

    def run(self, name: str, kills: list[dict[str, Any]]) -> tuple[list[str], str]:
        """How each life ended, and all that was said."""
        spec = {"output": str(self.folder / name), "model": self.model, "overrides": self.overrides, "kills": kills}
        done = subprocess.run(
            [sys.executable, "-m", "tests.train.lives", json.dumps(spec)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert done.returncode == 0, done.stderr
        ends: list[str] = json.loads(done.stdout.splitlines()[-1])
        assert ends[-1] == "exit 0", done.stderr
        return ends, done.stderr

    def assert_as_if_nothing_had_happened(self, name: str) -> None:
        one, other = (Run.find(None, output=self.folder / name) for name in ("straight", name))
        assert_same(read_checkpoint(one.checkpoint), read_checkpoint(other.checkpoint))
        assert_same(read_weights(one.best_weights), read_weights(other.best_weights))
        assert rows(one) == rows(other)
        assert other.ended == "completed"
        assert [path.name for path in other.path.rglob(".*")] == []


def rows(run: Run) -> list[dict[str, Any]]:
    lines = run.metrics.read_text(encoding="utf-8").splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != "images_per_s"} for line in lines]


def assert_same(a: Any, b: Any, place: str = "") -> None:
    if isinstance(a, dict):
        assert a.keys() == b.keys(), place
        for key in a:
            assert_same(a[key], b[key], f"{place}/{key}")
    elif isinstance(a, np.ndarray):
        assert np.array_equal(a, b), place
    else:
        assert a == b, place


@pytest.fixture(scope="module", params=list(MODELS))
def lives(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Lives:
    return Lives(tmp_path_factory.mktemp("lives"), request.param)


def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bits(lives: Lives) -> None:
    # Four saves are killed at another step of theirs each, one at its beginning and one between two steps.
    kills = [
        {"at": "write", "nth": 2},
        {"at": "sync", "nth": 3},
        {"at": "rename", "nth": 2},
        {"at": "renamed", "nth": 3},
    ]
    assert lives.run("killed", kills)[0] == [*["killed"] * 4, "exit 0"]
    lives.assert_as_if_nothing_had_happened("killed")


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS)
def test_kills_at_every_step_of_saving(lives: Lives, point: str) -> None:
    for nth in range(1, 7):
        name = f"{point} {nth}"
        ends, _ = lives.run(name, [{"at": point, "nth": nth}])
        lives.assert_as_if_nothing_had_happened(name)
        if ends == ["exit 0"]:
            assert nth > 1, "it never came there"
            break


@pytest.mark.slow
def test_a_hundred_kills_at_random_moments(lives: Lives) -> None:
    rng = random.Random(0)
    killed, name = 0, 0
    while killed < 100:
        kills = [{"after": rng.uniform(0, 2.5)} for _ in range(10)]
        name += 1
        killed += lives.run(str(name), kills)[0].count("killed")
        lives.assert_as_if_nothing_had_happened(str(name))
