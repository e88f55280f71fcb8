from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.samples import boxes_of, make_folder, swapped
from toolkit.data.detections import Detections
from toolkit.data.preprocess import Prepared
from toolkit.errors import UserError
from toolkit.pipeline import backends
from toolkit.pipeline.backends import load_backend
from toolkit.pipeline.backends.choose import choose_engine
from toolkit.pipeline.backends.engines import ENGINES
from toolkit.pipeline.certificate import Agreement, Certificate
from toolkit.pipeline.config import read_hpi_config
from toolkit.pipeline.exported import Exported, read_exported
from toolkit.pipeline.sample import read_sample

SOUND = Agreement("f32", 6, 6, 0.0, 0.0, 1.0, 1.0, mask_ap_change=0.0, box_ap_change=0.0, ms_per_picture=5.0)


class Stand:
    """Engines that are stood in for: all are installed, each finds what it is told to and takes its time."""

    def __init__(self, folder: Path) -> None:
        self.exported: Exported = read_exported(folder)
        self.loaded: list[str] = []
        self.wrong: set[str] = set()
        self.seconds = dict.fromkeys(ENGINES, 0.02)

    def load(self, exported: Exported, name: str, **_: Any) -> Any:
        self.loaded.append(name)
        sample = read_sample(exported.folder)
        assert sample is not None
        find = swapped(boxes_of(sample)) if name in self.wrong else boxes_of(sample)

        class Backend:
            shared = False

            def __init__(self, seconds: float) -> None:
                self.name = name
                self.seconds = seconds

            def __call__(self, batch: Sequence[Prepared], *, threshold: float) -> list[Detections]:
                time.sleep(self.seconds)
                return find(batch, threshold=threshold)

        return Backend(self.seconds[name])

    def certify(self, **agreements: Agreement) -> None:
        Certificate("m", 2, "validation", 1.0, 1.0, agreements).write(self.exported.folder)


@pytest.fixture
def stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stand:
    monkeypatch.setenv("SEG_TUNE_CACHE", str(tmp_path / "cache"))
    stand = Stand(make_folder(tmp_path / "inference"))
    for name in ("inference.onnx", "inference.int8.onnx", "inference.json", "inference.pdiparams"):
        (stand.exported.folder / name).write_bytes(b"graph")
    monkeypatch.setattr("toolkit.pipeline.backends.engines.find_spec", lambda _: object())
    monkeypatch.setattr("toolkit.pipeline.backends.choose.load_engine", stand.load)
    monkeypatch.setattr(backends, "load_engine", stand.load)
    return stand


def chosen(stand: Stand, **arguments: Any) -> str:
    stand.loaded.clear()
    return load_backend(stand.exported, **arguments).name


def test_one_sound_engine_is_taken_without_measuring(stand: Stand) -> None:
    slow = Agreement(**{**vars(SOUND), "ms_per_picture": 50.0})
    stand.certify(onnxruntime=SOUND, openvino=slow, paddle=slow, paddle_onednn=slow)
    assert chosen(stand) == "onnxruntime"
    assert stand.loaded == ["onnxruntime"]


def test_the_fastest_is_measured_once_and_remembered(stand: Stand, capsys: pytest.CaptureFixture[str]) -> None:
    stand.certify(onnxruntime=SOUND, openvino=SOUND, paddle=SOUND, paddle_onednn=SOUND)
    stand.seconds["openvino"] = 0.001
    assert chosen(stand) == "openvino"
    assert len(stand.loaded) == 5
    assert "measuring once" in capsys.readouterr().err
    assert chosen(stand) == "openvino"
    assert stand.loaded == ["openvino"]
    assert capsys.readouterr().err == ""
    assert chosen(stand, threads=7) == "openvino"
    assert len(stand.loaded) == 5, "another number of threads is another measurement"
    (stand.exported.folder / "inference.onnx").write_bytes(b"another graph")
    chosen(stand)
    assert len(stand.loaded) == 5, "so is another graph"


def test_times_of_the_export_do_not_compare_with_those_of_first_use(stand: Stand) -> None:
    """The model was exported on a slower machine; what was not there then looks fast at first."""
    slow = Agreement(**{**vars(SOUND), "ms_per_picture": 500.0})
    slower = Agreement(**{**vars(SOUND), "ms_per_picture": 1000.0})
    stand.certify(onnxruntime=slow, paddle=slower, paddle_onednn=slower)
    stand.seconds["onnxruntime"] = 0.001
    assert chosen(stand) == "onnxruntime"
    assert "paddle" not in stand.loaded


@pytest.mark.parametrize("content", ["", "[]", '{"agreements": {"onnxruntime": 3}, "ms": {}}'])
def test_a_broken_memory_is_made_anew(stand: Stand, tmp_path: Path, content: str) -> None:
    stand.certify(onnxruntime=SOUND, openvino=SOUND, paddle=SOUND, paddle_onednn=SOUND)
    stand.seconds["openvino"] = 0.001
    chosen(stand)
    [file] = (tmp_path / "cache" / "engines").iterdir()
    file.write_text(content)
    assert chosen(stand) == "openvino"
    assert json.loads(file.read_text())["ms"]["openvino"] < 15


def test_a_wrong_engine_is_caught_at_first_use_and_refused(stand: Stand, capsys: pytest.CaptureFixture[str]) -> None:
    stand.certify(onnxruntime=SOUND, paddle=SOUND, paddle_onednn=SOUND)
    stand.seconds["openvino"] = 0.0  # The fastest, if it were right.
    stand.wrong.add("openvino")
    assert chosen(stand) != "openvino"
    assert "openvino: first used with this model here" in capsys.readouterr().err
    assert chosen(stand) != "openvino"
    assert capsys.readouterr().err == "", "remembered"
    assert chosen(stand, engine="openvino") == "openvino", "by name it runs"
    said = capsys.readouterr().err
    assert "engine openvino: differs from the trained model by more than is allowed" in said
    assert "box AP -0.9" in said


def test_no_engine_that_agrees(stand: Stand) -> None:
    stand.wrong = set(ENGINES)
    stand.certify(onnxruntime=Agreement(**{**vars(SOUND), "matched": 0}))
    with pytest.raises(UserError, match=r"no engine here agrees .*time: 0 of 6 rows .*; name one of onnxruntime"):
        load_backend(stand.exported)


def test_lower_precision_runs_with_use_hpip_and_within_its_allowance(stand: Stand) -> None:
    stand.certify(onnxruntime=SOUND, openvino=SOUND, paddle=SOUND, paddle_onednn=SOUND)
    stand.seconds |= {"openvino_bf16": 0.008, "openvino_int8": 0.004, "onnxruntime_int8": 0.0}
    stand.wrong.add("onnxruntime_int8")
    assert ENGINES[chosen(stand)].precision == "f32"
    assert chosen(stand, use_hpip=True) == "openvino_int8"
    assert ENGINES[chosen(stand)].precision == "f32"


@pytest.mark.parametrize(
    ("config", "engine"),
    [
        ({"backend": "openvino"}, "openvino"),
        ({"backend": "openvino", "backend_config": {"precision": "bf16"}}, "openvino_bf16"),
        ("{backend: onnxruntime, backend_config: {precision: int8, cpu_num_threads: 3}}", "onnxruntime_int8"),
        ({"auto_config": False, "backend": "paddle", "auto_paddle2onnx": False}, "paddle"),
    ],
)
def test_hpi_config_names_an_engine(stand: Stand, config: Any, engine: str) -> None:
    assert chosen(stand, use_hpip=True, hpi_config=read_hpi_config(config)) == engine
    assert chosen(stand, use_hpip=False, hpi_config=read_hpi_config(config)) == "onnxruntime", "not looked at"
    assert chosen(stand, engine="paddle", use_hpip=True, hpi_config=read_hpi_config(config)) == "paddle"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{backend: tensorflow}", "hpi_config: backend: "),
        ("{backnd: openvino}", "hpi_config: backnd: unknown key; did you mean backend?"),
        ("{backend_config: {precison: bf16}}", "precison: unknown key; did you mean precision?"),
        ("openvino", "must be a mapping such as"),
        ("{", "hpi_config: not readable"),
    ],
)
def test_hpi_configs_that_are_none(config: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        read_hpi_config(config)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_hpi_config_that_names_nothing_and_lets_nothing_be_chosen(stand: Stand) -> None:
    with pytest.raises(UserError, match="auto_config is false and there is no backend; name one"):
        load_backend(stand.exported, use_hpip=True, hpi_config=read_hpi_config({"auto_config": False}))


def test_accelerators_get_paddle(stand: Stand) -> None:
    stand.certify(onnxruntime=SOUND)
    assert chosen(stand, device="gpu:1") == "paddle"
    tensorrt = read_hpi_config({"backend": "tensorrt", "backend_config": {"precision": "fp32"}})
    assert chosen(stand, device="gpu:1", use_hpip=True, hpi_config=tensorrt) == "onnxruntime_tensorrt"


def test_without_a_sample_the_certificate_decides_alone(stand: Stand) -> None:
    stand.certify(onnxruntime=Agreement(**{**vars(SOUND), "matched": 0}), openvino=SOUND)
    for file in (stand.exported.folder / "sample").iterdir():
        file.unlink()
    (stand.exported.folder / "sample").rmdir()
    load: Callable[..., Any] = lambda exported, name, **_: type("Named", (), {"name": name})  # noqa: E731
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backends, "load_engine", load)
        assert load_backend(stand.exported).name == "openvino"
        assert load_backend(stand.exported, use_hpip=True).name == "openvino", "nobody knows how good the others are"


def test_folders_of_others_run_without_questions(stand: Stand) -> None:
    assert choose_engine(stand.exported, device="cpu", lower_precision=True, threads=None) == "onnxruntime"
    (stand.exported.folder / "inference.onnx").unlink()
    (stand.exported.folder / "inference.int8.onnx").unlink()
    assert choose_engine(stand.exported, device="cpu", lower_precision=True, threads=None) == "paddle"
