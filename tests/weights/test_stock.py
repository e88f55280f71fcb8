"""Mirrors, a folder without network, and what the cache holds."""

from __future__ import annotations

import hashlib
import io
import socket
from pathlib import Path

import pytest
from rich.console import Console

from tests.weights import test_fetch
from tests.weights.test_fetch import CONTENT, Server
from toolkit.errors import UserError
from toolkit.weights import fetch as module
from toolkit.weights.fetch import fetch
from toolkit.weights.stock import fetch_weights, list_weights, verify_weights
from toolkit.zoo import MODELS

server, cache = test_fetch.server, test_fetch.cache


@pytest.fixture
def mirror():
    yield from test_fetch.serving()


def test_a_mirror_is_asked_first(server: Server, mirror: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEG_TUNE_MIRROR", f"http://127.0.0.1:{mirror.server_port}/here/")
    assert fetch(server.url).read_bytes() == CONTENT
    assert (len(mirror.asked), len(server.asked)) == (1, 0)


def test_of_mirrors_that_fail_the_next_is_asked(
    server: Server, mirror: Server, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        dead = free.getsockname()[1]
    mirror.status = 404
    monkeypatch.setenv("SEG_TUNE_MIRROR", f"http://127.0.0.1:{dead} http://127.0.0.1:{mirror.server_port}")
    assert fetch(server.url).read_bytes() == CONTENT
    said = capsys.readouterr().err
    assert "Connection refused; asking the next server" in said
    assert "HTTP 404 Not Found; asking the next server" in said


def test_a_part_from_a_mirror_is_not_mixed_with_another_version(
    server: Server, mirror: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror.content, mirror.etag, mirror.cuts = CONTENT[::-1], '"other"', [300_000] + [0] * 9
    monkeypatch.setenv("SEG_TUNE_MIRROR", f"http://127.0.0.1:{mirror.server_port}")
    assert fetch(server.url).read_bytes() == CONTENT


def test_offline_nothing_is_asked(server: Server, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    monkeypatch.setenv("SEG_TUNE_OFFLINE", str(folder))
    with pytest.raises(UserError, match=r"tiny\.pdparams: missing, and SEG_TUNE_OFFLINE forbids"):
        fetch(server.url)
    file = folder / "tiny.pdparams"
    file.write_bytes(CONTENT)
    assert fetch(server.url) == file
    note = folder / "tiny.pdparams.sha256"
    note.write_text(f"{hashlib.sha256(CONTENT).hexdigest()}  tiny.pdparams\n")
    assert fetch(server.url) == file
    file.write_bytes(CONTENT[1:])
    with pytest.raises(UserError, match=r"not what its \.sha256 says"):
        fetch(server.url)
    assert server.asked == []
    assert not cache.exists()


def test_what_is_here_is_listed(cache: Path) -> None:
    cache.mkdir()
    path = cache / Path(MODELS["SOLOv2"].url).name
    path.write_bytes(b"x" * 2_000_000)
    path.with_name(f"{path.name}.sha256").write_text("0123456789abcdef0123  a\n")
    console = Console(file=io.StringIO(), width=200)
    console.print(list_weights())
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert len(lines) == 17
    [solo] = [line.split() for line in lines if line.startswith("SOLOv2")]
    assert solo == ["SOLOv2", "2.0", "yes", "0123456789abcdef"]
    assert sum(" - " in line for line in lines) == 15


def test_models_are_fetched_by_name(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEG_TUNE_MIRROR", f"http://127.0.0.1:{server.server_port}")
    [one] = fetch_weights(["SOLOv2"], to=tmp_path / "usb")
    assert one.parent == tmp_path / "usb"
    assert one.read_bytes() == CONTENT
    assert len(fetch_weights(["all"], to=tmp_path / "usb")) == len(MODELS)
    asked = len(server.asked)
    with pytest.raises(UserError, match="did you mean SOLOv2"):
        fetch_weights(["Mask-RT-DETR-S", "SOLO"], to=tmp_path / "usb")
    assert len(server.asked) == asked


def test_files_are_held_against_their_notes(server: Server, cache: Path, tmp_path: Path) -> None:
    assert verify_weights() == {}
    path = fetch(server.url)
    assert verify_weights() == {path: "unchanged"}
    path.write_bytes(CONTENT[:-1] + b"x")
    mine, gone = cache / "mine.safetensors", cache / "gone.pdparams"
    mine.write_bytes(b"")
    gone.with_name("gone.pdparams.sha256").write_text("00  gone.pdparams\n")
    assert verify_weights() == {gone: "missing", mine: "no hash noted", path: "changed"}
    assert verify_weights([path]) == {path: "changed"}
    with pytest.raises(UserError, match="no such file or folder"):
        verify_weights([tmp_path / "nowhere"])


def test_a_note_without_a_hash(cache: Path) -> None:
    cache.mkdir()
    (cache / "a.pdparams").write_bytes(b"")
    (cache / "a.pdparams.sha256").write_text("")
    assert module.recorded_hash(cache / "a.pdparams") == ""
    assert list(verify_weights().values()) == ["changed"]
