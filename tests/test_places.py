from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from toolkit import places
from toolkit.errors import UserError
from toolkit.places import (
    cache_folders,
    expand,
    home_for_libraries,
    is_writable,
    refusal,
    require_writable,
    writable_cache,
    writing,
)

pytestmark = pytest.mark.skipif(os.name == "nt", reason="homes and permissions of POSIX")


@pytest.fixture
def nowhere(tmp_path: Path) -> Path:
    """A folder that cannot be made, for root neither."""
    (tmp_path / "file").write_text("")
    return tmp_path / "file" / "folder"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With `home` and `tmp` in it, and no cache named."""
    for name in ("home", "tmp"):
        (tmp_path / name).mkdir()
    monkeypatch.delenv("SEG_TUNE_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return tmp_path


def test_what_can_be_written_is_known_without_writing(tmp_path: Path, nowhere: Path) -> None:
    assert is_writable(tmp_path / "new" / "folder")
    assert not (tmp_path / "new").exists()
    assert not is_writable(nowhere)
    assert not is_writable(tmp_path / "file")
    with pytest.raises(UserError, match=r"file/folder: cannot be written; choose another folder with --output"):
        require_writable(nowhere)


def test_an_error_of_writing_names_the_place(nowhere: Path) -> None:
    with pytest.raises(UserError, match=r"folder: cannot be written: Not a directory; .* --output"), writing(nowhere):
        nowhere.mkdir()


def test_the_cache_is_where_it_is_told(machine: Path, nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEG_TUNE_CACHE", "~/mine")
    assert cache_folders() == [machine / "home" / "mine"]
    assert writable_cache() == machine / "home" / "mine"
    monkeypatch.setenv("SEG_TUNE_CACHE", str(nowhere))
    assert writable_cache() is None


def test_the_cache_is_at_home_else_among_temporary_files(
    machine: Path, nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = machine / "home" / ".cache" / "seg-tune" / "weights"
    own = machine / "tmp" / f"seg-tune-{os.getuid()}"
    assert cache_folders() == [home, own]
    assert writable_cache() == home
    monkeypatch.setenv("HOME", str(nowhere))
    assert writable_cache() == own
    assert own.stat().st_mode & 0o777 == 0o700
    own.chmod(0o777)
    assert writable_cache() is None, "others could put files there"
    own.rmdir()
    own.symlink_to(machine / "home")
    assert writable_cache() is None


def test_a_user_without_home_and_name(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert expand("~/a") == Path("~/a")
    assert writable_cache() == machine / "tmp" / f"seg-tune-{os.getuid()}"
    with home_for_libraries(".visualdl"):
        assert Path(os.environ["HOME"]).parent == machine / "tmp"
    assert "HOME" not in os.environ


def test_libraries_get_a_home_where_theirs_cannot_be_written(
    machine: Path, nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with home_for_libraries(".visualdl"):
        assert os.environ["HOME"] == str(machine / "home")
    (machine / "home" / ".visualdl").write_text("")
    with home_for_libraries(".visualdl"):
        given = Path(os.environ["HOME"])
        assert given.is_dir()
        assert given.parent == machine / "tmp"
    assert not given.exists()
    assert os.environ["HOME"] == str(machine / "home")


def test_refusals_of_the_system_are_told_from_other_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    said = refusal(OSError(errno.EROFS, "Read-only file system", "/a/b"))
    assert said == "/a/b: Read-only file system; change its permissions, or name another place"
    assert refusal(OSError(errno.ECONNRESET, "Connection reset")) is None
    assert refusal(FileNotFoundError(errno.ENOENT, "No such file", "/a")) is None
    monkeypatch.setattr(places, "_temporary", lambda: None)
    assert "TMPDIR" in str(refusal(FileNotFoundError(errno.ENOENT, "No usable temporary directory")))


CODE = """
import os, sys, tempfile
from toolkit.places import find_temporary_folder
if sys.argv[1:]:
    tempfile._candidate_tempdir_list = lambda: sys.argv[1:]
find_temporary_folder()
print(tempfile.gettempdir())
"""


def temporary(cwd: Path, *candidates: str, **variables: str) -> str:
    clean = {key: value for key, value in os.environ.items() if key not in ("TMPDIR", "TEMP", "TMP")}
    environment = {**clean, "PYTHONPATH": str(Path(places.__file__).parents[1]), **variables}
    command = [sys.executable, "-c", CODE, *candidates]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no files in memory here")
def test_temporary_files_lie_in_memory_where_no_folder_can_be_written(tmp_path: Path) -> None:
    assert temporary(tmp_path, "/nowhere") == "/dev/shm"
    assert temporary(tmp_path, "/nowhere", str(tmp_path)) == "/dev/shm", "they would litter the working folder"
    assert temporary(tmp_path, TMPDIR=f"{tmp_path}/") == str(tmp_path)
    assert temporary(Path("/tmp")) == "/tmp"
