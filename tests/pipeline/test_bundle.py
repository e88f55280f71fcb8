"""A model packed, carried and unpacked, and archives that are no such thing."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.pipeline.samples import make_folder
from toolkit.errors import UserError
from toolkit.pipeline.bundle import install_bundle, write_bundle
from toolkit.pipeline.config import load_pipeline_config


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "exported")


@pytest.fixture
def bundle(folder: Path, tmp_path: Path) -> Path:
    return write_bundle(folder, tmp_path / "model.tar")[0]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_it_comes_out_as_it_went_in(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = tmp_path / "data.txt"
    text.write_text("CC BY 4.0")
    file, missing = write_bundle(folder, tmp_path / "model.tar", licences=[text])
    assert missing == ["certificate.json", "README.md", "inference.onnx"]
    monkeypatch.chdir(tmp_path)
    config = install_bundle(file)
    assert config == Path("PP-YOLOE_seg-S/instance_segmentation.yaml")
    there = tmp_path / "PP-YOLOE_seg-S"
    assert contents(there / "inference") == contents(folder)
    assert {path.name for path in (there / "licences").iterdir()} == {"seg-tune.txt", "data.txt"}
    assert "Apache License" in (there / "licences" / "seg-tune.txt").read_text()
    # From anywhere, and in PaddleX, which takes a relative path from the working directory.
    monkeypatch.chdir("/")
    read = load_pipeline_config(tmp_path / config)
    assert read.model_dir == there / "inference"
    assert load_pipeline_config(there / "pipeline.yaml").model_dir.samefile(read.model_dir)
    done = subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=there, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, b"")


def test_the_same_model_makes_the_same_file(bundle: Path, folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    (copy / "inference.yml").touch()
    assert write_bundle(copy, tmp_path / "again.tar")[0].read_bytes() == bundle.read_bytes()


def test_a_run_is_packed_by_its_export(folder: Path, bundle: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "recipe.yaml").touch()
    with pytest.raises(UserError, match=r"neither .* nor an existing folder"):
        write_bundle(run)
    folder.rename(run / "inference")
    assert write_bundle(run, tmp_path / "run.tar")[0].read_bytes() == bundle.read_bytes()


@pytest.mark.parametrize("older", [False, True])
def test_a_config_keeps_what_it_says(folder: Path, tmp_path: Path, older: bool) -> None:
    module = {"model_name": "PP-YOLOE_seg-S", "model_dir": str(folder), "threshold": 0.3, "batch_size": 4}
    tree = (
        {"Pipeline": {"model": str(folder), "threshold": 0.3, "batch_size": 4}}
        if older
        else {"pipeline_name": "instance_segmentation", "SubModules": {"InstanceSegmentation": module}}
    )
    config = tmp_path / "mine.yaml"
    config.write_text(yaml.safe_dump(tree))
    file, _ = write_bundle(config, tmp_path / "model.tar")
    assert str(folder).encode() not in file.read_bytes(), "where its author keeps models is nobody's business"
    read = load_pipeline_config(install_bundle(file, tmp_path / "there"))
    assert (read.threshold, read.batch_size) == (0.3, 4)
    assert read.model_dir == tmp_path / "there" / "inference"


def test_nothing_is_overwritten(bundle: Path, folder: Path, tmp_path: Path) -> None:
    before = bundle.read_bytes()
    with pytest.raises(UserError, match=r"model\.tar: exists already"):
        write_bundle(folder, bundle)
    with pytest.raises(UserError, match="exists already"):
        install_bundle(bundle, folder)
    with pytest.raises(UserError, match="--licence nowhere: no such file"):
        write_bundle(folder, tmp_path / "b.tar", licences=[Path("nowhere")])
    assert bundle.read_bytes() == before


def rewritten(bundle: Path, change: Callable[[dict[str, bytes]], object]) -> Path:
    with tarfile.open(bundle) as archive:
        files = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
    change(files)
    file = bundle.with_name("changed.tar")
    with tarfile.open(file, "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file


TOP = "PP-YOLOE_seg-S"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda files: files.update({f"{TOP}/inference/inference.yml": b"x"}),
            r"inference\.yml: not what its hash says",
        ),
        (lambda files: files.pop(f"{TOP}/inference/inference.yml"), r"inference/inference\.yml: missing"),
        (lambda files: files.update({f"{TOP}/more.py": b"x"}), r"more\.py: without a hash"),
        (lambda files: files.pop(f"{TOP}/SHA256SUMS"), "not a bundle"),
        (lambda files: files.clear(), "not a bundle"),
        (lambda files: files.update({f"{TOP}/../../evil": b"x"}), "which no bundle has"),
        (lambda files: files.update({"/tmp/evil": b"x"}), "which no bundle has"),
        (lambda files: files.update({f"{TOP}/a\\b": b"x"}), "which no bundle has"),
        (lambda files: files.update({f"{TOP}/C:evil": b"x"}), "which no bundle has"),
        (lambda files: files.update({f"{TOP}/Bundle.json": b"x"}), "which no bundle has"),
        (lambda files: files.update({f"{TOP}/bundle.json": b'{"format": 9}'}), "format 9; this version reads format 1"),
        (lambda files: files.update({f"{TOP}/bundle.json": b"[]"}), "not a bundle that can be read"),
        (
            lambda files: files.update({f"{TOP}/bundle.json": b'{"format": 1, "model": "../x"}'}),
            "not a bundle that can",
        ),
    ],
)
def test_what_is_changed_is_refused_whole(
    change: Callable[[dict[str, bytes]], object], said: str, bundle: Path, tmp_path: Path
) -> None:
    before = set(tmp_path.parent.rglob("*"))
    file = rewritten(bundle, change)
    with pytest.raises(UserError, match=said):
        install_bundle(file, tmp_path / "there" / "model")
    left = set(tmp_path.parent.rglob("*")) - before - {file}
    assert left <= {tmp_path / "there"}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_refused(kind: bytes, bundle: Path, tmp_path: Path) -> None:
    with tarfile.open(bundle, "a") as archive:
        member = tarfile.TarInfo(f"{TOP}/inference/link")
        member.type, member.linkname = kind, "/etc/passwd"
        archive.addfile(member)
    with pytest.raises(UserError, match="link', which no bundle has"):
        install_bundle(bundle, tmp_path / "there")
    assert not (tmp_path / "there").exists()


def test_files_that_are_no_archives(bundle: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.tar"
    cut.write_bytes(bundle.read_bytes()[: bundle.stat().st_size // 2])
    with pytest.raises(UserError, match=r"not a whole tar file|cannot be read"):
        install_bundle(cut, tmp_path / "there")
    text = tmp_path / "text.tar"
    text.write_text(json.dumps({"a": hashlib.sha256(b"").hexdigest()}))
    with pytest.raises(UserError, match="not a whole tar file"):
        install_bundle(text, tmp_path / "there")
    with pytest.raises(UserError, match="cannot be read: No such file"):
        install_bundle(tmp_path / "nowhere.tar")
    assert not (tmp_path / "there").exists()
