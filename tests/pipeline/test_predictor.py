from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from toolkit import cores, create_model, create_pipeline
from toolkit.cli.main import app
from toolkit.data.detections import Detections
from toolkit.data.masks import Crop
from toolkit.data.preprocess import Prepared
from toolkit.errors import UserError
from toolkit.pipeline import predictor, sessions
from toolkit.pipeline.backends import load_backend
from toolkit.pipeline.config import HpiConfig
from toolkit.pipeline.exported import read_exported
from toolkit.pipeline.pages import READERS
from toolkit.pipeline.predictor import predict_files

SCORES = np.array([0.9, 0.6, 0.4, 0.2], np.float32)


class Fake:
    """Finds the same four objects in every picture."""

    name = "fake"

    def __init__(self, *, shared: bool = False) -> None:
        self.shared = shared
        self.batches: list[int] = []

    def __call__(self, batch: Sequence[Prepared], *, threshold: float) -> list[Detections]:
        self.batches.append(len(batch))
        n = int((threshold <= SCORES).sum())
        return [
            Detections(
                np.tile(np.array([[1, 1, 5, 4]], np.float32), (n, 1)),
                SCORES[:n],
                np.zeros(n, np.int64),
                [Crop(np.ones((3, 4), np.uint8), 1, 1)] * n,
                picture.size,
            )
            for picture in batch
        ]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An exported model whose backend is `Fake`."""
    monkeypatch.setattr(predictor, "load_backend", lambda *_, **__: Fake())
    monkeypatch.setattr(sessions, "load_engine", lambda *_, **__: Fake())
    folder = tmp_path / "inference"
    folder.mkdir()
    describe(folder)
    return folder


def describe(folder: Path, **changes: object) -> None:
    tree = {
        "Global": {"model_name": "Mask-RT-DETR-S"},
        "draw_threshold": 0.3,
        "Preprocess": [{"type": "Resize", "target_size": [8, 8], "interp": 2}, {"type": "Permute"}],
        "label_list": ["disc"],
        **changes,
    }
    (folder / "inference.yml").write_text(yaml.safe_dump({k: v for k, v in tree.items() if v is not None}))


def config(folder: Path, **changes: object) -> dict[str, object]:
    module = {"model_name": "Mask-RT-DETR-S", "model_dir": str(folder), **changes}
    return {"pipeline_name": "instance_segmentation", "SubModules": {"InstanceSegmentation": module}}


def count(pipeline: predictor.Pipeline, **arguments: Any) -> int:
    [result] = pipeline.predict(np.zeros((6, 7, 3), np.uint8), **arguments)  # type: ignore[arg-type]
    return len(result["boxes"])


def test_threshold_of_the_call_then_of_the_config_then_of_the_model(folder: Path) -> None:
    assert count(create_pipeline(folder), threshold=0.0) == 4
    assert count(create_pipeline(folder)) == 3
    assert count(create_pipeline(config=config(folder, threshold=0.5))) == 2
    assert count(create_pipeline(config=config(folder, threshold=0.5)), threshold=0.95) == 0
    assert count(create_pipeline(config=config(folder, threshold=0.0))) == 4, "0 is a threshold"
    describe(folder, draw_threshold=None)
    assert count(create_pipeline(folder)) == 2, "one half where nobody says it"


def test_thresholds_by_class(folder: Path) -> None:
    describe(folder, label_list=["disc", "ring"])
    pipeline = create_pipeline(config=config(folder))
    assert count(pipeline, threshold={"disc": 0.5}) == 2
    assert count(pipeline, threshold={"disc": 0.1, "ring": 0.9}) == 4
    # Those that are not named have the model's.
    assert count(pipeline, threshold={"ring": 0.05}) == 3
    with pytest.raises(UserError, match="no class cube; there are disc, ring"):
        count(pipeline, threshold={"cube": 0.5})


def test_thresholds_by_class_in_the_config(folder: Path) -> None:
    describe(folder, label_list=["disc", "ring"])
    # What is found are discs.
    pipeline = create_pipeline(config=config(folder, threshold={"disc": 0.5, "ring": 0.05}))
    assert count(pipeline) == 2
    assert count(pipeline, threshold={"ring": 0.9}) == 2, "the config's for those that the call does not name"
    assert count(pipeline, threshold=0.0) == 4
    assert count(create_pipeline(config=config(folder, threshold={"ring": 0.05}))) == 3, "the model's for the others"
    with pytest.raises(UserError, match="no class cube; there are disc, ring"):
        create_pipeline(config=config(folder, threshold={"cube": 0.5}))


def test_hpip_of_the_call_then_of_the_module_then_of_the_config(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[bool, str | None]] = []

    def load(*_: object, use_hpip: bool, hpi_config: HpiConfig | None, **__: object) -> Fake:
        asked.append((use_hpip, hpi_config and hpi_config.backend))
        return Fake()

    monkeypatch.setattr(predictor, "load_backend", load)
    whole = {**config(folder), "use_hpip": True, "hpi_config": {"backend": "paddle"}}
    inner = {**config(folder, use_hpip=False, hpi_config={"backend": "openvino"}), "use_hpip": True}
    create_pipeline(config=config(folder))
    create_pipeline(config=whole)
    create_pipeline(config=inner)
    create_pipeline(config=whole, use_hpip=False, hpi_config={"backend": "onnxruntime"})
    create_pipeline(config=inner, use_hpip=True)
    assert asked == [(False, None), (True, "paddle"), (False, "openvino"), (False, "onnxruntime"), (True, "openvino")]


def test_the_command_takes_both_spellings(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(predictor, "predict_files", lambda *_, **given: asked.append(given))
    for dash in "-_":
        run = [*("predict", "--input", "a.png", f"--use{dash}hpip"), f"--hpi{dash}config", "{backend: paddle}"]
        assert CliRunner().invoke(app, run).exit_code == 0
    assert [(given["use_hpip"], given["hpi_config"]) for given in asked] == [(True, "{backend: paddle}")] * 2


def test_predict_is_a_generator_over_batches(folder: Path) -> None:
    pipeline = create_pipeline(config=config(folder, batch_size=2))
    fake = pipeline.backend
    assert isinstance(fake, Fake)
    pictures = [np.zeros((6, 7 + i, 3), np.uint8) for i in range(5)]
    results = pipeline.predict(pictures)
    assert fake.batches == []
    assert next(results).size == (6, 7)
    assert fake.batches == [2], "the first pictures by themselves"
    assert [result.size[1] for result in results] == [8, 9, 10, 11]
    assert sorted(fake.batches) == [1, 2, 2]
    list(pipeline.predict(pictures, batch_size=5))
    assert fake.batches[3:] == [5]


def pictures_of(folder: Path, count: int) -> Path:
    """Pictures of different widths, in the order of their names."""
    folder.mkdir()
    for i in range(count):
        Image.new("RGB", (9 + i, 6)).save(folder / f"{i:04}.png")
    return folder


class Slow(Fake):
    """Takes longer on every second picture, and counts how many threads are in it and its like."""

    calls = 0
    most = 0
    lock = threading.Lock()

    def __call__(self, batch: Sequence[Prepared], *, threshold: float) -> list[Detections]:
        with Slow.lock:
            Slow.calls += 1
            Slow.most = max(Slow.most, Slow.calls)
        time.sleep(0.02 if batch[0].size[1] % 2 else 0.001)
        with Slow.lock:
            Slow.calls -= 1
        return super().__call__(batch, threshold=threshold)


@pytest.mark.parametrize(
    ("shared", "device", "loaded", "most"),
    [
        (True, None, [("cpu", None), ("cpu", 1)], 4),
        (False, None, [("cpu", None)], 1),
        (False, "cpu:2", [("cpu", 2), ("cpu", 2)], 2),
        (False, "gpu:0,2", [("gpu:0", 2), ("gpu:2", 2)], 2),
    ],
)
def test_several_sessions_keep_the_order(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    shared: bool,
    device: str | None,
    loaded: list[tuple[str, int | None]],
    most: int,
) -> None:
    asked: list[tuple[str, int | None]] = []

    def load(*_: object, device: str = "cpu", threads: int | None = None, **__: object) -> Fake:
        asked.append((device, threads))
        return Slow(shared=shared)

    monkeypatch.setattr(predictor, "load_backend", load)
    monkeypatch.setattr(sessions, "load_engine", load)
    monkeypatch.setattr(sessions, "cores", lambda: 4)
    Slow.most = 0
    pictures = pictures_of(tmp_path / "pictures", 25)
    pipeline = create_pipeline(folder, device=device)
    assert [result.size[1] for result in pipeline.predict(pictures)] == list(range(9, 34))
    assert asked == loaded
    assert Slow.most == most


def test_an_error_is_raised_in_its_place(folder: Path, tmp_path: Path) -> None:
    pictures = pictures_of(tmp_path / "pictures", 9)
    (pictures / "0005.png").write_bytes(b"")
    results = create_pipeline(config=config(folder, batch_size=2)).predict(pictures)
    assert [next(results).size[1] for _ in range(5)] == [9, 10, 11, 12, 13]
    with pytest.raises(UserError, match=r"0005\.png"):
        next(results)


def test_an_iterator_that_is_left_half_way_lets_go_of_its_threads(folder: Path, tmp_path: Path) -> None:
    before = threading.active_count()
    results = create_pipeline(folder).predict(pictures_of(tmp_path / "pictures", 30))
    for _ in range(3):
        next(results)
    assert threading.active_count() > before
    del results
    assert threading.active_count() == before


def test_a_folder_of_another_model_is_refused(folder: Path) -> None:
    describe(folder, Global={"model_name": "SOLOv2"})
    with pytest.raises(UserError, match=r"Global\.model_name: the folder holds SOLOv2, the pipeline asks for Mask-RT-"):
        create_pipeline(config=config(folder))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label_list": None}, r"inference\.yml: label_list: missing"),
        ({"label_list": "disc"}, r"inference\.yml: label_list: of the wrong kind"),
        ({"Preprocess": None}, r"inference\.yml: Preprocess: missing"),
        ({"draw_threshold": "high"}, r"inference\.yml: draw_threshold: of the wrong kind"),
    ],
)
def test_descriptions_that_lack_something(folder: Path, changes: dict[str, object], message: str) -> None:
    describe(folder, **changes)
    with pytest.raises(UserError, match=message):
        read_exported(folder)


def test_folders_without_what_an_engine_needs(folder: Path) -> None:
    exported = read_exported(folder)
    with pytest.raises(UserError, match=r"has no inference\.onnx"):
        load_backend(exported, engine="onnxruntime")
    with pytest.raises(UserError, match=r"has no inference\.json"):
        load_backend(exported)
    with pytest.raises(UserError, match="engine tensorrt: unknown; possible are onnxruntime, onnxruntime_int8, open"):
        load_backend(exported, engine="tensorrt")
    for device in ("cuda", "GPU", "gpu:", "cpu:x", "tpu:0"):
        with pytest.raises(UserError, match=f"device {device}: unknown; possible are cpu, gpu:0, npu:0, xpu:0, mlu:0"):
            load_backend(exported, device=device)
    with pytest.raises(UserError, match="engine onnxruntime: does not run on gpu:0, but on cpu"):
        load_backend(exported, engine="onnxruntime", device="gpu:0")
    with pytest.raises(UserError, match=r"has no inference\.int8\.onnx; export it again with --int8"):
        load_backend(exported, engine="onnxruntime_int8")
    (folder / "inference.onnx").write_bytes(b"nothing")
    for engine in (None, "onnxruntime", "openvino") if find_spec("openvino") else (None, "onnxruntime"):
        with pytest.raises(UserError, match=r"inference\.onnx: not loadable"):
            load_backend(exported, engine=engine)
    with pytest.raises(UserError, match="has no CUDAExecutionProvider; `pip install onnxruntime-gpu`"):
        load_backend(exported, engine="onnxruntime_cuda", device="gpu:0")


def test_an_engine_that_is_not_installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "inference.onnx").write_bytes(b"nothing")
    monkeypatch.setattr("toolkit.pipeline.backends.engines.find_spec", lambda name: None)
    for engine, package in (("openvino_bf16", "openvino"), ("onnxruntime", "onnxruntime"), (None, "onnxruntime")):
        with pytest.raises(UserError, match=f"engine {engine or package}: not installed; `pip install {package}`"):
            load_backend(read_exported(folder), engine=engine)


def test_a_folder_without_a_description(folder: Path) -> None:
    with pytest.raises(UserError, match=r"no inference\.yml"):
        read_exported(folder.parent)


def test_files_are_saved_beside_each_other_and_never_over_each_other(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = tmp_path / "pictures"
    (pictures / "below").mkdir(parents=True)
    for name in ("a.png", "a.jpg", "below/a.png"):
        Image.new("RGB", (9, 6)).save(pictures / name)
    (pictures / "broken.png").write_bytes(b"")
    out = tmp_path / "out"
    with pytest.raises(UserError, match="1 of 4 pictures could not be read"):
        predict_files(pictures, pipeline=folder, save_path=out)
    saved = {path.relative_to(out).as_posix() for path in out.rglob("*.*")}
    assert saved == {"a_res.jpg", "a_res.json", "a_res_2.png", "a_res_2.json", "below/a_res.png", "below/a_res.json"}
    assert json.loads((out / "a_res_2.json").read_text())["input_path"] == str(pictures / "a.png")
    said = capsys.readouterr()
    assert f"{pictures / 'a.jpg'}: 3 instances: disc 0.90, disc 0.60, disc 0.40" in said.out
    assert "broken.png" in said.err


def test_pages_and_frames_are_saved_by_their_numbers(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pages = [Image.new("RGB", (9, 6)) for _ in range(2)]
    pages[0].save(tmp_path / "a.pdf", save_all=True, append_images=pages[1:])
    assert predict_files(tmp_path / "a.pdf", pipeline=folder, save_path=tmp_path / "out") == 2
    saved = {path.name for path in (tmp_path / "out").iterdir()}
    assert saved == {"a_0_res.png", "a_0_res.json", "a_1_res.png", "a_1_res.json"}
    said = capsys.readouterr().out
    assert f"{tmp_path / 'a.pdf'} [0]: 3 instances" in said
    assert f"{tmp_path / 'a.pdf'} [1]: 3 instances" in said


def test_frames_of_a_long_video_are_not_held(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alive: set[int] = set()

    def frames(*_: str) -> Iterator[np.ndarray]:
        for number in range(300):
            frame = np.full((6, 7, 3), number % 256, np.uint8)
            alive.add(number)
            weakref.finalize(frame, alive.discard, number)
            yield frame

    monkeypatch.setitem(READERS, ".mp4", frames)
    (tmp_path / "a.mp4").touch()
    most = seen = 0
    for number, result in enumerate(create_pipeline(folder).predict(tmp_path / "a.mp4")):
        assert result["page_index"] == number
        assert (result["input_img"] == number % 256).all()
        most, seen = max(most, len(alive)), number + 1
    assert seen == 300
    assert most <= 2 * (cores() + predictor.READERS) + 3


@pytest.mark.parametrize(
    ("said", "expected"), [("0.5", 2), ("1", 0), ("0", 4), ("{disc: 0.8}", 1), ("{disc: 0.1, ring: 1}", 4), (None, 3)]
)
def test_threshold_on_the_command_line(folder: Path, tmp_path: Path, said: str | None, expected: int) -> None:
    describe(folder, label_list=["disc", "ring"])
    Image.new("RGB", (9, 6)).save(tmp_path / "a.png")
    arguments = ["--input", str(tmp_path / "a.png"), "--pipeline", str(folder)]
    done = CliRunner().invoke(app, ["predict", *arguments, *(["--threshold", said] if said else [])])
    assert done.exit_code == 0
    assert f"a.png: {expected} instances" in done.output


@pytest.mark.parametrize("said", ["1.5", "-1", "half", "yes", "{disc: 2}", "[0.5]", "{", ""])
def test_thresholds_that_are_none(folder: Path, said: str) -> None:
    with pytest.raises(UserError, match=r"--threshold .*must be a number from 0 to 1, or such numbers by class"):
        predict_files("a.png", pipeline=folder, threshold=said)


def test_batches_of_nothing_are_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="batch_size: must be at least 1"):
        list(create_pipeline(folder).predict([np.zeros((6, 7, 3), np.uint8)], batch_size=0))


def test_a_model_by_its_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = np.zeros((6, 7, 3), np.uint8)
    model = create_model("Mask-RT-DETR-S", folder, batch_size=2)
    fake = model.pipeline.backend
    assert isinstance(fake, Fake)
    assert [len(result["boxes"]) for result in model.predict([picture] * 2)] == [3, 3]
    assert [len(result["boxes"]) for result in model([picture] * 3, 3, threshold=0.5)] == [2, 2, 2]
    assert fake.batches == [2, 3]
    assert [len(result["boxes"]) for result in create_model("Mask-RT-DETR-S", folder, threshold=0.8)(picture)] == [1]
    with pytest.raises(UserError, match="create_model: model_name: Mask-RTDETR-S is unknown; did you mean Mask"):
        create_model("Mask-RTDETR-S", folder)
    with pytest.raises(UserError, match="the folder holds Mask-RT-DETR-S, the pipeline asks for SOLOv2"):
        create_model("SOLOv2", folder)
    with pytest.raises(UserError, match="create_model: model_dir nowhere: no such folder"):
        create_model("Mask-RT-DETR-S", "nowhere")
    monkeypatch.setenv("PADDLE_PDX_CACHE_HOME", str(folder))
    with pytest.raises(UserError, match="create_model: no model_dir, and PaddleX's SOLOv2 is not in"):
        create_model("SOLOv2")


def test_a_file_is_no_place_for_results(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=r"--save-path .*file: is a file; name a folder"):
        predict_files("a.png", pipeline=folder, save_path=tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_nothing_is_saved_unless_asked_for(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (9, 6)).save("a.png")
    before = set(tmp_path.rglob("*"))
    assert predict_files("a.png", pipeline=folder) == 1
    assert set(tmp_path.rglob("*")) == before


def test_importing_the_pipeline_imports_no_paddle() -> None:
    modules = "toolkit.pipeline.predictor, toolkit.pipeline.backends.onnxruntime, toolkit.pipeline.backends.openvino"
    modules += ", toolkit.pipeline.measure, toolkit.pipeline.bundle, toolkit.evaluate.predictions, toolkit.serve.client"
    code = f"import sys, {modules}; sys.exit('paddle' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def tiles_seen(pipeline: predictor.Pipeline, *pictures: np.ndarray) -> list[int]:
    list(pipeline.predict(list(pictures), batch_size=4))
    seen: list[int] = pipeline.backend.batches  # type: ignore[attr-defined]
    return seen


def test_tiles_are_those_of_the_call_then_of_the_config_then_of_the_model(folder: Path) -> None:
    large, small = np.zeros((100, 64, 3), np.uint8), np.zeros((64, 64, 3), np.uint8)
    assert tiles_seen(create_pipeline(folder), large, small) == [2]
    describe(folder, tiling={"size": [64, 64]})
    assert tiles_seen(create_pipeline(folder), large, small, large) == [4, 1]
    assert tiles_seen(create_pipeline(folder, tiling=False), large, small) == [2]
    other = {"size": [32, 64], "overlap": 0}
    assert tiles_seen(create_pipeline(config=config(folder, tiling=other)), large) == [4]
    assert tiles_seen(create_pipeline(config=config(folder, tiling=False)), large) == [1]
    assert tiles_seen(create_pipeline(config=config(folder, tiling=False), tiling=other), large) == [4]
    assert tiles_seen(create_pipeline(config=config(folder, tiling=other), tiling=False), large) == [1]


def test_a_bad_block_of_the_model_is_named(folder: Path) -> None:
    describe(folder, tiling={"size": [64, 64], "overlap": 1})
    with pytest.raises(UserError, match=r"inference\.yml: tiling\.overlap: Input should be less than 0\.9 \(is: 1\)"):
        create_pipeline(folder)
