from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from tests.pipeline.samples import make_folder
from toolkit.cli.main import app
from toolkit.errors import UserError
from toolkit.pipeline.config import load_pipeline_config
from toolkit.pipeline.get import write_pipeline_config


def get(*arguments: str, answer: str = "") -> str:
    done = CliRunner().invoke(app, ["pipeline", "get", *arguments], input=answer, catch_exceptions=False)
    assert done.exit_code == 0
    return done.output


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def with_run(project: Path) -> Path:
    run = project / "output" / "latest"
    run.mkdir(parents=True)
    (run / "recipe.yaml").write_text("")
    return make_folder(run / "inference")


def test_the_newest_run(project: Path) -> None:
    folder = with_run(project)
    said = get("instance_segmentation")
    assert "written to instance_segmentation.yaml" in said
    config = load_pipeline_config("instance_segmentation.yaml")
    assert (config.model_name, config.threshold) == ("PP-YOLOE_seg-S", 0.5)
    assert config.model_dir.samefile(folder)
    assert config.model_dir.is_absolute()


def test_without_a_run_it_is_paddlexs_own(project: Path) -> None:
    assert "no run in ./output" in get()
    tree = yaml.safe_load((project / "instance_segmentation.yaml").read_text())
    assert tree == {
        "pipeline_name": "instance_segmentation",
        "SubModules": {
            "InstanceSegmentation": {
                "module_name": "instance_segmentation",
                "model_name": "Mask-RT-DETR-S",
                "model_dir": None,
                "batch_size": 1,
                "threshold": 0.5,
            }
        },
    }


def test_a_run_that_is_not_exported(project: Path) -> None:
    run = project / "output" / "latest"
    run.mkdir(parents=True)
    (run / "recipe.yaml").write_text("")
    with pytest.raises(UserError, match="not exported yet; run `seg-tune export`"):
        get()
    assert list(project.iterdir()) == [project / "output"]


@pytest.mark.parametrize("option", ["--save-path", "--save_path"])
def test_places(project: Path, option: str) -> None:
    get(option, "new/folder")
    get(option, "other/mine.yml")
    assert (project / "new" / "folder" / "instance_segmentation.yaml").is_file()
    assert (project / "other" / "mine.yml").is_file()
    (project / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        get(option, "file/a.yaml")


def test_nothing_is_replaced_unasked(project: Path) -> None:
    file = project / "instance_segmentation.yaml"
    file.write_text("mine")
    for answer in ("", "n\n"):
        with pytest.raises(UserError, match=r"is there already, and stays; -y replaces it"):
            get(answer=answer)
    assert file.read_text() == "mine"
    get(answer="y\n")
    assert "SubModules" in file.read_text()
    file.write_text("mine")
    get("-y")
    assert "SubModules" in file.read_text()


def test_other_pipelines(project: Path) -> None:
    with pytest.raises(UserError, match="pipeline OCR: unknown; there is instance_segmentation"):
        write_pipeline_config("OCR", project, may_replace=lambda _: True)
