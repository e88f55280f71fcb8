from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from toolkit.doctor import packages
from toolkit.doctor.packages import look_at_owners, look_at_requirements, read_requirements


def install(site: Path, name: str, version: str = "1.0", **fields: list[str]) -> Path:
    """Lay metadata down as pip does."""
    folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir(parents=True)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"{key.replace('_', '-')}: {value}" for key, values in fields.items() for value in values]
    (folder / "METADATA").write_text("\n".join(lines) + "\n\n")
    return folder


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder in which distributions are found; modules are those that are imported already."""
    import packaging.requirements
    import packaging.specifiers  # noqa: F401

    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setattr(packages, "has_nvidia_driver", lambda: False)
    return tmp_path


def test_one_paddle_is_well(site: Path) -> None:
    install(site, "paddlepaddle", "3.3.1")
    [check], facts = look_at_owners()
    assert (check.name, check.status, check.text) == ("paddle distributions", "ok", "paddlepaddle 3.3.1")
    assert facts["paddle"] == {"paddlepaddle": "3.3.1"}


@pytest.mark.parametrize(
    ("nvidia", "wanted"),
    [(False, '"paddlepaddle==3.3.1"'), (True, '"paddlepaddle-gpu==3.2.0" -i https://')],
)
def test_two_paddles_are_an_error_with_its_fix(
    site: Path, nvidia: bool, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, "has_nvidia_driver", lambda: nvidia)
    install(site, "paddlepaddle", "3.3.1")
    install(site, "paddlepaddle_gpu", "3.2.0")
    [check], _ = look_at_owners()
    assert check.status == "error"
    uninstall, reinstall = check.fix
    assert uninstall.endswith("-m pip uninstall -y paddlepaddle paddlepaddle-gpu")
    assert f"-m pip install {wanted}" in reinstall


def test_another_distribution_that_owns_the_folder_counts(site: Path) -> None:
    install(site, "paddlepaddle", "3.3.1")
    folder = install(site, "house-build", "1.0")
    (folder / "RECORD").write_text("house_build/x.py,,\npaddle/__init__.py,sha256=a,3\n")
    [check], facts = look_at_owners()
    assert check.status == "error"
    assert set(facts["paddle"]) == {"paddlepaddle", "house-build"}


def test_two_onnxruntimes_and_two_opencvs(site: Path) -> None:
    others = ("onnxruntime-extensions", "openvino-telemetry")
    for name in ("onnxruntime", "onnxruntime-gpu", "opencv-python", "opencv-python-headless", *others):
        install(site, name)
    checks, facts = look_at_owners()
    assert set(facts["onnxruntime"]) == {"onnxruntime", "onnxruntime-gpu"}
    assert {check.name: check.status for check in checks} == {
        "paddle distributions": "ok",
        "onnxruntime distributions": "error",
        "cv2 distributions": "warning",
    }


def test_requirements_extra_by_extra(site: Path) -> None:
    asked = [
        "numpy>=1.26",
        "rich>=13",
        'colorama; sys_platform == "nowhere"',
        'paddlepaddle<4,>=3.3; extra == "train"',
        'visualdl>=2.5; extra == "train"',
        'pypdfium2; extra == "pdf"',
        'seg-tune[pdf,train]; extra == "all"',
    ]
    install(site, "seg-tune", "0.1.0", Requires_Dist=asked, Provides_Extra=["train", "pdf", "all"])
    install(site, "numpy", "2.1")
    install(site, "rich", "12.0")
    install(site, "pypdfium2", "4.30")
    install(site, "paddlepaddle", "2.6")
    found = {(one.name, one.extra): one.state for one in read_requirements()}
    assert found == {
        ("numpy", None): "installed",
        ("rich", None): "other version",
        ("paddlepaddle", "train"): "other version",
        ("visualdl", "train"): "missing",
        ("pypdfium2", "pdf"): "installed",
    }
    checks, facts = look_at_requirements()
    by_name = {check.name: check for check in checks}
    assert by_name["requirements"].status == "warning"
    assert "rich 12.0 (asked for: >=13)" in by_name["requirements"].text
    assert by_name["extra train"].fix == ('pip install "seg-tune[train]"',)
    assert by_name["extra pdf"].status == "ok"
    assert set(facts) == {"base", "train", "pdf"}


def test_what_is_missing_of_seg_tune_itself_is_an_error(site: Path) -> None:
    install(site, "seg-tune", "0.1.0", Requires_Dist=["numpy>=1.26"])
    [check], _ = look_at_requirements()
    assert (check.status, check.fix) == ("error", ("pip install seg-tune",))


def test_metadata_that_is_broken_counts_as_missing(site: Path) -> None:
    install(site, "seg-tune", "0.1.0", Requires_Dist=["numpy>=1.26"])
    (site / "numpy-2.0.dist-info").mkdir()
    [check], _ = look_at_requirements()
    assert "numpy" in check.text


def test_not_installed_at_all(site: Path) -> None:
    with pytest.raises(PackageNotFoundError):
        list(read_requirements())
    [check], _ = look_at_requirements()
    assert check.status == "warning"
