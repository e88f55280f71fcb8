"""Blocks of paddledet 2.6.0 that still run, held against ours: names, shapes, outputs.

PADDLEDET_PYTHON=/path/to/python pytest -m paddledet -n 0 -s
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

from toolkit.nn.fpn import FPN
from toolkit.nn.resnet import ResNet

pytestmark = [
    pytest.mark.paddledet,
    pytest.mark.skipif(
        "PADDLEDET_PYTHON" not in os.environ, reason="PADDLEDET_PYTHON does not name a Python that has paddledet"
    ),
]
SIDE = Path(__file__).with_name("paddledet_side.py")


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("paddledet") / "blocks.npz"
    command = [os.environ["PADDLEDET_PYTHON"], str(SIDE), str(out)]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return np.load(out)


def part(theirs: Any, prefix: str) -> dict[str, np.ndarray]:
    return {key.removeprefix(prefix): theirs[key] for key in theirs.files if key.startswith(prefix)}


@pytest.mark.parametrize("name", ["r18vd", "r50", "r50vd", "x101vd"])
def test_a_resnet_and_its_pyramid(theirs: Any, name: str) -> None:
    said = json.loads(str(theirs["options"]))[name]
    backbone = ResNet(
        depth=said["depth"],
        vd=said["variant"] == "d",
        groups=said.get("groups", 1),
        group_width=said.get("base_width", 64),
    )
    outputs = part(theirs, f"{name}/backbone output/")
    neck = FPN(in_channels=[output.shape[1] for output in outputs.values()], out_channels=32)
    for kind, layer in (("backbone", backbone), ("neck", neck)):
        weights, own = part(theirs, f"{name}/{kind}/"), layer.state_dict()
        assert {key: tuple(value.shape) for key, value in own.items()} == {k: v.shape for k, v in weights.items()}
        for key, value in weights.items():
            own[key].set_value(value)
        layer.eval()
    with paddle.no_grad():
        maps = backbone(paddle.to_tensor(theirs["image"]))
        for kind, found in (("backbone", maps), ("neck", neck(maps))):
            expected = part(theirs, f"{name}/{kind} output/")
            assert len(found) == len(expected)
            for level, ours in enumerate(found):
                there = expected[str(level)]
                difference = float(np.abs(ours.numpy() - there).max() / np.abs(there).max())
                print(f"{name} {kind} {level}: {difference:.1e} of the largest value")
                assert difference < 1e-5
