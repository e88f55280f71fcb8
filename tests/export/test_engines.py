"""One tiny model, exported with its 8-bit graph and checked on annotated pictures; run where there is no Paddle."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.export.conftest import HAS_OPENVINO, needs_openvino, pictures, recipe_of, tiny
from toolkit import create_pipeline
from toolkit.data.coco import Annotation
from toolkit.data.masks import crop_to_rle, rle_area
from toolkit.data.preprocess import Preprocess, steps_of
from toolkit.evaluate.detect import detect_prepared
from toolkit.export.run import export_model
from toolkit.pipeline.certificate import AP_CHANGE
from toolkit.pipeline.sample import read_sample

pytestmark = pytest.mark.skipif(find_spec("paddle2onnx") is None, reason="paddle2onnx is not here")

NAME = "PP-YOLOE_seg-S"
BLOCK = """
import importlib.machinery as machinery
original = machinery.PathFinder.find_spec
def find_spec(name, path=None, target=None):
    return None if name.partition(".")[0] in ("paddle", "paddle2onnx") else original(name, path, target)
machinery.PathFinder.find_spec = find_spec
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The annotations are what the model finds itself, so that its AP is high."""
    model, recipe = tiny(NAME), recipe_of(NAME)
    prepare = Preprocess(steps_of(recipe.data), origin="recipe")
    annotations = []
    for found in detect_prepared(model, [prepare(picture) for picture in pictures()], limit=6):
        rles = [crop_to_rle(mask, found.size) for mask in found.masks]
        annotations.append(
            [
                Annotation(i, label, (0.0, 0.0, 1.0, 1.0), rle, rle_area(rle), False)
                for i, (label, rle) in enumerate(zip(found.labels.tolist(), rles, strict=True))
                if rle_area(rle) > 50
            ]
        )
    out = tmp_path_factory.mktemp("engines") / "inference"
    export_model(
        model,
        recipe=recipe,
        out=out,
        pictures=pictures(),
        annotations=annotations,
        calibration=pictures(),
        source="generated",
    )
    return out


def test_the_certificate_knows_each_engine_and_the_change_in_ap(folder: Path) -> None:
    tree = json.loads((folder / "certificate.json").read_text())
    engines = {"onnxruntime", "onnxruntime_int8", "paddle", "paddle_onednn"}
    if HAS_OPENVINO:
        engines |= {"openvino", "openvino_bf16", "openvino_int8"}
    assert set(tree["backends"]) == engines
    assert tree["trained_mask_ap"] > 0.5
    for agreement in tree["backends"].values():
        change = max(abs(agreement["mask_ap_change"]), abs(agreement["box_ap_change"]))
        within = change <= AP_CHANGE[agreement["precision"]]
        assert agreement["holds"] == within, "in f32 all rows match here"
        assert within or agreement["precision"] != "f32"
    sample = read_sample(folder)
    assert sample is not None
    assert sample.annotated
    assert len(sample.trained) == tree["pictures"] == 3


def test_norms_are_folded_and_operators_are_standard(folder: Path) -> None:
    import onnx

    model = onnx.load(str(folder / "inference.onnx"))
    onnx.checker.check_model(model)
    kinds = {node.op_type for node in model.graph.node}
    assert "Conv" in kinds
    assert not kinds & {"BatchNormalization", "Identity", "Constant"}
    assert {node.domain for node in model.graph.node} == {""}
    assert [output.name for output in model.graph.output] == ["boxes", "scores", "labels", "mask_logits"]


def test_the_8_bit_graph_keeps_the_last_convolutions(folder: Path) -> None:
    import onnx

    graph = onnx.load(str(folder / "inference.int8.onnx")).graph
    makers = {output: node.op_type for node in graph.node for output in node.output}
    eight = [makers.get(node.input[1]) == "DequantizeLinear" for node in graph.node if node.op_type == "Conv"]
    assert sum(eight) > 20
    assert 3 <= len(eight) - sum(eight) < len(eight) / 3, "classes, distances and coefficients of each level"


@pytest.mark.parametrize(
    "engine",
    [
        "onnxruntime_int8",
        pytest.param("openvino_int8", marks=needs_openvino),
        pytest.param("openvino_bf16", marks=needs_openvino),
    ],
)
def test_lower_precision_by_name_finds_much_the_same(folder: Path, engine: str) -> None:
    pipeline = create_pipeline(folder, engine=engine)
    assert pipeline.backend.name == engine
    exact = create_pipeline(folder, engine="onnxruntime")
    for rgb in pictures():
        [found], [expected] = (p.predict(rgb[..., ::-1], threshold=0.3) for p in (pipeline, exact))
        assert len(expected["boxes"]) > 3
        assert abs(len(found["boxes"]) - len(expected["boxes"])) <= 0.3 * len(expected["boxes"]) + 2


def without_paddle(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "sitecustomize.py").write_text(BLOCK)
    path = os.pathsep.join([str(folder), str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_prediction_where_there_is_no_paddle(folder: Path, tmp_path: Path) -> None:
    assert without_paddle(tmp_path, "-c", "import paddle").stderr.endswith("No module named 'paddle'\n")
    cv2.imwrite(str(tmp_path / "a.png"), pictures()[1][..., ::-1])
    command = ["-m", "toolkit.cli.main", "predict", "--pipeline", str(folder), "--input", "a.png", "--save-path", "out"]
    said = without_paddle(tmp_path, *command)
    assert (said.returncode, "Traceback" in said.stderr) == (0, False), said.stderr
    boxes = json.loads((tmp_path / "out" / "a_res.json").read_text())["boxes"]
    [expected] = create_pipeline(folder, engine="onnxruntime").predict(str(tmp_path / "a.png"))
    assert np.allclose([box["score"] for box in boxes], [box["score"] for box in expected["boxes"]], atol=1e-3)
    for engine in ("onnxruntime", "openvino") if HAS_OPENVINO else ("onnxruntime",):
        code = (
            "from toolkit import create_pipeline\n"
            f"[result] = create_pipeline({str(folder)!r}, engine={engine!r}).predict('a.png')\n"
            "print(len(result['boxes']), len(result['masks']))"
        )
        said = without_paddle(tmp_path, "-c", code)
        assert said.stdout == f"{len(boxes)} {len(boxes)}\n", said.stderr
    said = without_paddle(tmp_path, *command, "--engine", "paddle")
    assert said.returncode == 2
    assert said.stderr == "error: engine paddle: not installed; `pip install paddlepaddle`\n"
