from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from toolkit.data.detections import Detections, detect
from toolkit.data.preprocess import Prepared
from toolkit.errors import UserError
from toolkit.pipeline import predictor
from toolkit.pipeline.benchmark import STAGES, TOTAL, benchmark
from toolkit.stages import stage, stages

SECONDS = {"onnxruntime": 0.01, "paddle": 0.05}


class Fake:
    """Two instances in every picture, after a time."""

    shared = False

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, batch: Sequence[Prepared], *, threshold: float) -> list[Detections]:
        def network(image: np.ndarray, im_shape: np.ndarray, threshold: np.ndarray) -> list[np.ndarray]:
            time.sleep(SECONDS[self.name])
            boxes = np.tile(np.array([1, 1, 5, 4], np.float32), (len(image), 2, 1))
            scores = np.full((len(image), 2), 0.9, np.float32)
            return [boxes, scores, np.zeros(scores.shape, np.int64), np.ones((*scores.shape, 4, 4), np.float32)]

        return detect(network, batch, mask_frame="image", mask_clip=True, threshold=threshold)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An exported model, and beside it two pictures."""

    def load(*_: object, engine: str, **__: object) -> Fake:
        if engine not in SECONDS:
            raise UserError(f"engine {engine}: not here")
        return Fake(engine)

    monkeypatch.setattr(predictor, "load_backend", load)
    (tmp_path / "inference").mkdir()
    tree = {
        "Global": {"model_name": "Mask-RT-DETR-S"},
        "Preprocess": [{"type": "Resize", "target_size": [8, 8], "interp": 2}, {"type": "Permute"}],
        "label_list": ["disc"],
    }
    (tmp_path / "inference" / "inference.yml").write_text(yaml.safe_dump(tree))
    (tmp_path / "pictures").mkdir()
    for name in ("a.png", "b.png"):
        Image.new("RGB", (9, 6)).save(tmp_path / "pictures" / name)
    return tmp_path


def test_stages_of_each_engine_as_table_and_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = folder / "figures.json"
    measured = benchmark(folder / "inference", input=folder / "pictures", repetitions=3, json_file=file)
    assert (measured.model, measured.pictures, measured.instances) == ("Mask-RT-DETR-S", 2, 2.0)
    for engine, seconds in SECONDS.items():
        spreads = measured.engines[engine]
        assert set(spreads) == {*STAGES, TOTAL}
        assert all(0 < spread.low <= spread.median <= spread.high for spread in spreads.values())
        assert 1000 * seconds <= spreads["network"].median < spreads[TOTAL].median
    tree = json.loads(file.read_text())
    assert tree["engines"]["paddle"]["network"]["median"] == measured.engines["paddle"]["network"].median
    said = capsys.readouterr().out
    assert all(word in said for word in (*STAGES, TOTAL, "onnxruntime is the fastest", "into the stage network"))


def test_engines_that_do_not_run_here_are_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(SECONDS, "paddle")
    measured = benchmark(folder / "inference", input=folder / "pictures", repetitions=1, pictures=1)
    assert list(measured.engines) == ["onnxruntime"]
    assert measured.pictures == 1
    said = capsys.readouterr().out
    assert "without paddle: engine paddle: not here" in said
    assert "without paddle_onednn: " in said
    assert "cuda" not in said, "which is nothing for a CPU"
    with pytest.raises(UserError, match="engine paddle: not here"):
        benchmark(folder / "inference", engines=["paddle"])
    monkeypatch.delitem(SECONDS, "onnxruntime")
    with pytest.raises(UserError, match="no engine runs it here: engine onnxruntime: not here; engine "):
        benchmark(folder / "inference")


def test_the_bundled_sample_is_there(folder: Path) -> None:
    assert benchmark(folder / "inference", engines=["onnxruntime"], repetitions=1, pictures=2).pictures == 2


def test_what_cannot_be_measured(folder: Path) -> None:
    (folder / "broken.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"broken\.png"):
        benchmark(folder / "inference", input=folder / "broken.png", repetitions=1)
    with pytest.raises(UserError, match="not a place for a file"):
        benchmark(folder / "inference", json_file=folder / "nowhere" / "figures.json")


def test_stages_are_summed_up_and_only_for_who_asks() -> None:
    with stages() as seconds:
        for _ in range(2):
            with stage("a"):
                time.sleep(0.001)
    with stage("a"):
        pass
    assert list(seconds) == ["a"]
    assert seconds["a"] >= 0.002
