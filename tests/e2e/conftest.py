from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.pictures import write_dataset
from toolkit.models import mask_rcnn, mask_rtdetr, ppyoloe_seg

Shell = Callable[..., subprocess.CompletedProcess[str]]
TINY = {
    "PP-YOLOE_seg-S": ppyoloe_seg.TINY,
    "Mask-RT-DETR-S": mask_rtdetr.TINY,
    "MaskRCNN-ResNet50-FPN": mask_rcnn.TINY,
}


def run_in(folder: Path, *arguments: str, code: int = 0, timeout: int = 300) -> subprocess.CompletedProcess[str]:
    """Run `seg-tune ARGUMENTS` in `folder` and insist on its exit code; `timeout` in seconds."""
    command = [sys.executable, "-m", "toolkit.cli.main", *arguments]
    environment = {key: value for key, value in os.environ.items() if key != "MKL_DEBUG_CPU_TYPE"}
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=timeout, check=False, env=environment
    )
    assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done


@dataclass(frozen=True)
class Project:
    """A folder in which a tiny model has been trained and exported through the command line."""

    folder: Path
    model: str
    said: dict[str, subprocess.CompletedProcess[str]]

    @property
    def run(self) -> Path:
        return self.folder / "output" / "latest"


@pytest.fixture(scope="session", params=list(TINY))
def project(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Project:
    model = request.param
    folder = tmp_path_factory.mktemp("my project")
    write_dataset(folder / "my data")
    train = [
        *("train", "--model", model, "--data", "my data", "--pretrained", "none", "--epochs", "2"),
        *("--batch-size", "4", "--device", "cpu", "--set", f"model.options={json.dumps(TINY[model])}"),
        *("--set", "data.input_size=[64, 64]", "--set", "data.train_sizes=[]"),
    ]
    said = {"train": run_in(folder, *train)}
    said["eval"] = run_in(folder, "eval", "--batch-size", "2")
    said["export"] = run_in(folder, "export", "--to-pipeline-config", "pipeline.yaml")
    return Project(folder, model, said)
