"""Pictures larger than a tile, from training to prediction."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.e2e.conftest import TINY
from tests.pictures import write_dataset
from toolkit.data.images import read_rgb
from toolkit.data.joining import join
from toolkit.data.tiling import cut, windows_of
from toolkit.evaluate.run import evaluate_trained
from toolkit.export.run import export_trained
from toolkit.pipeline.predictor import create_pipeline, predict_files
from toolkit.run import Run
from toolkit.train.start import start_training

BLOCK = {"size": [64, 64], "overlap": 0.2, "join": 0.5, "least_part": 0.1, "empty": 0.1}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on pictures of some 150 pixels in tiles of 64, exported."""
    folder = tmp_path_factory.mktemp("tiles")
    settings = [
        f"model.options={json.dumps(TINY['PP-YOLOE_seg-S'])}",
        "tiling.size=[64, 64]",
        "data.input_size=[64, 64]",
        "data.train_sizes=[]",
        "data.workers=0",
        "train.pretrained=none",
        "train.epochs=1",
        "train.batch_size=4",
        "evaluate.batch_size=4",
    ]
    data = {"data.path": str(write_dataset(folder / "data", train=2, val=2, side=150))}
    run, result = start_training(
        "PP-YOLOE_seg-S", overrides=data, settings=settings, device="cpu", output=folder / "output"
    )
    assert result["ended"] == "completed"
    export_trained(run=run.path, to_pipeline_config=True)
    return run


def test_the_block_travels_with_the_model(run: Run) -> None:
    assert "in tiles of 64 x 64 pixels, " in run.log.read_text(encoding="utf-8")
    assert yaml.safe_load((run.path / "recipe.yaml").read_text(encoding="utf-8"))["tiling"] == BLOCK
    assert yaml.safe_load((run.path / "inference" / "inference.yml").read_text(encoding="utf-8"))["tiling"] == BLOCK
    assert create_pipeline(run.path / "inference").tiling == run.recipe().tiling


def test_evaluation_joins_tiles_to_whole_pictures(run: Run) -> None:
    trained = json.loads(run.result.read_text(encoding="utf-8"))["best"]
    found = evaluate_trained(run=run.path, device="cpu")
    assert found.pictures == trained["pictures"] == 2
    assert found.detections == trained["detections"]
    assert found.mask == pytest.approx(trained["mask"], abs=1e-6)
    whole = evaluate_trained(run=run.path, device="cpu", tiling="off")
    assert whole.pictures == 2
    assert whole.detections != found.detections


def test_prediction_takes_the_models_tiles_unless_told_otherwise(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    config, picture = run.path / "instance_segmentation.yaml", f"{run.recipe().data.path}/images/val 0.png"

    def predicted(pipeline: Path, tiling: str | None = None) -> str:
        assert predict_files(picture, pipeline=pipeline, threshold=0.01, tiling=tiling) == 1
        return capsys.readouterr().out

    own, off = predicted(config), predicted(config, "off")
    assert own != off
    tree = yaml.safe_load(config.read_text(encoding="utf-8"))
    tree["SubModules"]["InstanceSegmentation"]["tiling"] = False
    without = run.path / "without.yaml"
    without.write_text(yaml.safe_dump(tree), encoding="utf-8")
    assert predicted(without) == off
    assert predicted(without, "{size: [64, 64]}") == own


def test_a_prediction_is_those_of_its_tiles_joined(run: Run) -> None:
    rgb = read_rgb(f"{run.recipe().data.path}/images/val 0.png")
    tiling = run.recipe().tiling
    assert tiling
    pipeline = create_pipeline(run.path / "inference")
    windows = windows_of(rgb.shape[:2], tiling)
    assert len(windows) == 9
    each = [pipeline.backend([pipeline.model.preprocess(cut(rgb, window))], threshold=0.01)[0] for window in windows]
    joined = join(each, windows, rgb.shape[:2], agreement=tiling.join)
    assert 0 < len(joined) < sum(map(len, each))
    [result] = pipeline.predict(np.ascontiguousarray(rgb[..., ::-1]), threshold=0.01, batch_size=4)
    assert [box["score"] for box in result["boxes"]] == pytest.approx(joined.scores.tolist(), abs=1e-5)
    assert [box["cls_id"] for box in result["boxes"]] == joined.labels.tolist()
