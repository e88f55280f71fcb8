from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.pipeline.samples import Engine, boxes_of, make_folder, swapped
from tests.serve.conftest import Fixed
from toolkit.errors import UserError
from toolkit.pipeline import predictor
from toolkit.pipeline.predictor import Pipeline, create_pipeline
from toolkit.pipeline.sample import Sample, read_sample
from toolkit.serve import app as service
from toolkit.serve.app import ENDPOINT, Settings, create_app
from toolkit.serve.selftest import self_test, write_golden


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = make_folder(tmp_path / "inference")
    write_golden(folder, sample_of(folder))
    return folder


def sample_of(folder: Path) -> Sample:
    sample = read_sample(folder)
    assert sample is not None
    return sample


def pipeline_of(folder: Path, monkeypatch: pytest.MonkeyPatch, *, wrong: bool = False) -> Pipeline:
    engine: Engine = boxes_of(sample_of(folder))
    if wrong:
        engine = swapped(engine)
    engine.name = "onnxruntime"  # type: ignore[attr-defined]
    engine.shared = False  # type: ignore[attr-defined]
    monkeypatch.setattr(predictor, "load_backend", lambda *_, **__: engine)
    return create_pipeline(folder)


def test_the_answer_is_what_a_client_gets(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request, expected = (json.loads((folder / "sample" / f"{name}.json").read_text()) for name in ("request", "answer"))
    with TestClient(create_app(pipeline_of(folder, monkeypatch), Settings())) as client:
        given = client.post(ENDPOINT, json=request).json()
    assert given == expected
    assert len(given["result"]["instances"]) == 3
    picture = base64.b64decode(request["image"])
    assert picture in [path.read_bytes() for path in (folder / "sample").glob("*.png")]


def test_it_holds(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "onnxruntime: 3 of 3 rows matched" in self_test(pipeline_of(folder, monkeypatch))


def test_another_answer_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = pipeline_of(folder, monkeypatch, wrong=True)
    with pytest.raises(UserError, match="self-test failed on onnxruntime: 0 of 3 rows matched"):
        self_test(pipeline)


def test_an_export_without_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "sample" / "answer.json").unlink()
    assert "no sample to replay" in self_test(pipeline_of(folder, monkeypatch))


@pytest.mark.parametrize("name", ["request.json", "answer.json"])
@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"image": "%%%"}', '{"logId": "", "errorCode": 0, "errorMsg": "", "result": {}}']
)
def test_files_that_cannot_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> None:
    (folder / "sample" / name).write_text(text)
    with pytest.raises(UserError) as refused:
        self_test(pipeline_of(folder, monkeypatch))
    assert "\n" not in str(refused.value)


def test_hpip_reaches_the_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr(service, "create_pipeline", lambda *_, **given: asked.update(given) or Fixed())
    Settings(use_hpip=True, hpi_config="{backend: openvino}").load()
    assert (asked["use_hpip"], asked["hpi_config"]) == (True, "{backend: openvino}")
