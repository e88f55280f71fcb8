from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from toolkit.cli.models import models
from toolkit.errors import UserError
from toolkit.zoo import MODELS, find_model

app = typer.Typer()
app.command()(models)


def run(*arguments: str, columns: int = 80) -> str:
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": str(columns), "TERM": "xterm"})
    if result.exception:
        raise result.exception
    return result.output


def listed(output: str) -> list[str]:
    return [line.split()[0] for line in output.splitlines() if line.split() and line.split()[0] in MODELS]


def test_all_sixteen_fit_into_80_columns_without_colour():
    output = run()
    assert sorted(listed(output)) == sorted(MODELS)
    assert max(map(len, output.splitlines())) <= 80
    assert "…" not in output
    assert "\x1b" not in output
    assert re.search(r"^Mask-RT-DETR-L +45\.7 +113\.6 +113 +1180 *$", output, re.MULTILINE)
    assert re.search(r"^SOLOv2 +35\.5 +179\.1 +132 +- *$", output, re.MULTILINE)


@pytest.mark.parametrize(
    ("sort", "field", "sign"),
    [("mask-ap", "mask_ap", -1), ("size", "size_mb", 1), ("gpu", "gpu_ms", 1), ("cpu", "cpu_ms", 1)],
)
def test_sorted_best_first_and_unknown_last(sort, field, sign):
    figures = [getattr(MODELS[name], field) for name in listed(run("--sort", sort))]
    known = [figure for figure in figures if figure is not None]
    assert known == sorted(known, key=lambda figure: sign * figure)
    assert figures[len(known) :] == [None] * (len(MODELS) - len(known))


def test_sorted_by_name():
    assert listed(run("--sort", "name")) == sorted(MODELS)


def test_details_of_one():
    output = run("Mask-RT-DETR-L")
    lines = dict(line.split(maxsplit=1) for line in output.splitlines()[1:])
    assert output.startswith("Mask-RT-DETR-L\n")
    assert lines["download"] == MODELS["Mask-RT-DETR-L"].url  # On one line, to be copied.
    assert lines["backbone"] == "PP-HGNetV2 L"
    assert lines["CPU"] == "1180 ms a picture (Xeon 6271C, 8 threads, FP32)"
    assert "not published" in run("MaskRCNN-ResNet50-vd-SSLDv2-FPN")


def test_json():
    everything = json.loads(run("--json", "--sort", "name"))
    assert [model["name"] for model in everything] == sorted(MODELS)
    one = json.loads(run("SOLOv2", "--json"))
    assert one == next(model for model in everything if model["name"] == "SOLOv2")
    assert (one["mask_ap"], one["cpu_ms"], one["url"]) == (35.5, None, MODELS["SOLOv2"].url)


@pytest.mark.parametrize(
    ("asked", "hint"),
    [
        ("mask-rt-detr-s", "did you mean Mask-RT-DETR-S?"),
        ("solo", "did you mean SOLOv2?"),
        ("MaskRCNN-R50-FPN", "did you mean MaskRCNN-ResNet50-FPN?"),
        ("yolo", "did you mean PP-YOLOE_seg-S?"),
        ("bert", "`seg-tune models` lists them"),
    ],
)
def test_unknown_names(asked, hint):
    with pytest.raises(UserError, match=re.escape(f"model {asked}: unknown; {hint}")):
        run(asked)
    with pytest.raises(UserError):
        find_model(asked)


def test_neither_paddle_nor_opencv_is_imported():
    code = (
        "import sys; from toolkit.cli.models import models; models(); models('SOLOv2');"
        "sys.exit(', '.join({'paddle', 'cv2', 'numpy'} & set(sys.modules)) or 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
