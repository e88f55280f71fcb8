from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from toolkit.errors import UserError
from toolkit.pipeline.config import PipelineConfig, dump_pipeline_config, load_pipeline_config
from toolkit.zoo import MODELS


def current(model_dir: Path, /, **changes: object) -> dict[str, object]:
    module = {
        "module_name": "instance_segmentation",
        "model_name": "Mask-RT-DETR-S",
        "model_dir": str(model_dir),
        "batch_size": 2,
        "threshold": 0.3,
        **changes,
    }
    return {"pipeline_name": "instance_segmentation", "SubModules": {"InstanceSegmentation": module}}


def test_current_generation_from_a_file_and_a_dict(tmp_path: Path) -> None:
    expected = PipelineConfig(model_dir=tmp_path, model_name="Mask-RT-DETR-S", batch_size=2, threshold=0.3)
    file = tmp_path / "ä b.yaml"
    file.write_text(yaml.safe_dump(current(tmp_path)), encoding="utf-8")
    assert load_pipeline_config(file) == expected
    assert load_pipeline_config(str(file)) == expected
    assert load_pipeline_config(current(tmp_path)) == expected


def test_what_paddlex_ships_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PADDLE_PDX_CACHE_HOME", str(tmp_path))
    official = tmp_path / "official_models" / "Mask-RT-DETR-S"
    official.mkdir(parents=True)
    tree = current(tmp_path, model_dir=None, batch_size=1, threshold=0.5)
    assert load_pipeline_config(tree | {"use_hpip": False}).model_dir == official
    official.rmdir()
    with pytest.raises(UserError, match="no model_dir, and PaddleX's Mask-RT-DETR-S is not in"):
        load_pipeline_config(tree)


def test_what_paddlex_s_server_is_told(tmp_path: Path) -> None:
    tree = current(tmp_path)
    assert load_pipeline_config(tree).visualize
    assert not load_pipeline_config(tree | {"Serving": {"visualize": False, "extra": {"any": 1}}}).visualize
    with pytest.raises(UserError, match="did you mean visualize"):
        load_pipeline_config(tree | {"Serving": {"visualise": False}})


def test_older_generation(tmp_path: Path) -> None:
    folder = tmp_path / "inference"
    folder.mkdir()
    tree = {
        "Global": {"pipeline_name": "instance_segmentation", "input": "https://example.com/a.png"},
        "Pipeline": {"model": str(folder), "device": "cpu", "batch_size": 3},
        "NOTE": {"device": ["gpu"]},
    }
    assert load_pipeline_config(tree) == PipelineConfig(model_dir=folder, batch_size=3, device="cpu")
    file = tmp_path / "older.yml"
    file.write_text(yaml.safe_dump({"Pipeline": {"model": "inference"}}))
    assert load_pipeline_config(file).model_dir == folder, "a relative folder is found beside the config too"


def test_relative_folder_is_first_taken_as_paddlex_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here" / "inference").mkdir(parents=True)
    (tmp_path / "there" / "inference").mkdir(parents=True)
    file = tmp_path / "there" / "pipeline.yaml"
    file.write_text(yaml.safe_dump(current(Path("inference"))))
    monkeypatch.chdir(tmp_path / "here")
    assert load_pipeline_config(file).model_dir.resolve() == (tmp_path / "here" / "inference").resolve()


def test_a_folder_is_a_pipeline(tmp_path: Path) -> None:
    assert load_pipeline_config(tmp_path) == PipelineConfig(model_dir=tmp_path)


def test_the_name_stands_for_the_newest_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PADDLE_PDX_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(UserError, match="no run in"):
        load_pipeline_config("instance_segmentation")
    run = tmp_path / "output" / "latest"
    run.mkdir(parents=True)
    (run / "recipe.yaml").write_text("")
    with pytest.raises(UserError, match="not exported yet; run `seg-tune export`"):
        load_pipeline_config("instance_segmentation")
    (run / "inference").mkdir()
    assert load_pipeline_config().model_dir.resolve() == (run / "inference").resolve()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(name=st.sampled_from(sorted(MODELS)), threshold=st.floats(0, 1), folder=st.text("abä ü-#:'\"", min_size=1))
def test_what_is_written_is_read_back(tmp_path: Path, name: str, threshold: float, folder: str) -> None:
    model_dir = tmp_path / f"m{folder}"
    model_dir.mkdir(exist_ok=True)
    file = tmp_path / "written.yaml"
    file.write_text(dump_pipeline_config(model_name=name, model_dir=model_dir, threshold=threshold), encoding="utf-8")
    config = load_pipeline_config(file)
    assert (config.model_name, config.threshold) == (name, threshold)
    assert config.model_dir == model_dir.resolve()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"treshold": 0.5}, r"SubModules.InstanceSegmentation.treshold: unknown key; did you mean threshold\?"),
        ({"threshold": 1.5}, r"InstanceSegmentation.threshold: .*a number from 0 to 1, or .* \(is: 1.5\)"),
        ({"threshold": {"disc": True}}, r"InstanceSegmentation.threshold: .*numbers by name of class"),
        ({"batch_size": 0}, r"batch_size: .*greater than 0"),
        ({"tiling": {"size": [64]}}, r"SubModules.InstanceSegmentation: tiling.size.1: Field required"),
        ({"model_name": "Mask-RT-DTER-S"}, r"model_name: Mask-RT-DTER-S is unknown; did you mean Mask-RT-DETR-S\?"),
        ({"model_dir": "/nowhere"}, r"model_dir /nowhere: no such folder; `seg-tune export` makes one"),
    ],
)
def test_refusals_name_file_key_and_remedy(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    file = tmp_path / "pipeline.yaml"
    file.write_text(yaml.safe_dump(current(tmp_path, **changes)))
    with pytest.raises(UserError, match=message) as error:
        load_pipeline_config(file)
    assert str(error.value).startswith(str(file))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pipeline_name: [", "not a readable YAML file"),
        ("- a", "a pipeline config is a mapping"),
        ("pipeline_name: OCR\nSubModules: {}", "pipeline_name: Input should be 'instance_segmentation'"),
        ("pipeline_name: instance_segmentation", "SubModules: missing"),
        ("Pipeline: {}", "Pipeline.model: missing"),
    ],
)
def test_files_that_are_no_config(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "pipeline.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=message):
        load_pipeline_config(file)


def test_pipelines_that_do_not_exist(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such pipeline config"):
        load_pipeline_config(tmp_path / "missing.yaml")
    with pytest.raises(UserError, match="neither instance_segmentation, nor"):
        load_pipeline_config("object_detection")


def test_thresholds_by_class_in_both_generations(tmp_path: Path) -> None:
    thresholds = {"disc": 0.25, "7": 1}
    assert load_pipeline_config(current(tmp_path, threshold=thresholds)).threshold == thresholds
    older = {"Pipeline": {"model": str(tmp_path), "threshold": {"disc": 0.25, 7: 1}}}
    assert load_pipeline_config(older).threshold == thresholds
    assert load_pipeline_config(current(tmp_path, threshold=None)).threshold is None
