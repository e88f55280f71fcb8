"""Downloads from a server on the loopback that misbehaves on request."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from toolkit.errors import UserError
from toolkit.weights import fetch as module
from toolkit.weights.fetch import fetch, resolve_pretrained, weights_file
from toolkit.zoo import MODELS

CONTENT = bytes(range(256)) * 4096  # 1 MiB


class Server(ThreadingHTTPServer):
    """Serves `content`; how it goes wrong is set by the attributes."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.etag: str | None = '"one"'
        self.modified: str | None = None
        self.kind = "application/octet-stream"
        self.status: int | None = None
        self.ranges = True
        self.ignores_if_range = False
        self.says_length = True
        self.cuts: list[int] = []
        """After how many bytes the next answers break off."""
        self.wrong_start = 0
        self.flows = threading.Event()
        self.flows.set()
        self.asked: list[str | None] = []
        """The Range of each request."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/models/tiny.pdparams"

    def handle_error(self, request: object, client_address: object) -> None:
        pass


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server, asked = self.server, self.headers["Range"]
        server.asked.append(asked)
        if server.status:
            self.send_error(server.status)
            return
        start = 0
        unchanged = self.headers["If-Range"] in (server.etag, server.modified) or server.ignores_if_range
        if asked and server.ranges and unchanged:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(server.content):
                self.send_error(416)
                return
        body = server.content[start:]
        self.send_response(206 if start else 200)
        if start:
            shown = start + server.wrong_start
            self.send_header("Content-Range", f"bytes {shown}-{len(server.content) - 1}/{len(server.content)}")
        if server.says_length:
            self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.send_header("Content-Type", server.kind)
        for name, value in (("ETag", server.etag), ("Last-Modified", server.modified)):
            if value:
                self.send_header(name, value)
        self.end_headers()
        if server.cuts:
            body = body[: server.cuts.pop(0)]
        self.wfile.write(body[:-1])
        self.wfile.flush()
        server.flows.wait(20)
        self.wfile.write(body[-1:])
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


def serving():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.flows.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def server():
    yield from serving()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SEG_TUNE_CACHE", str(tmp_path / "cache"))
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache"


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()} - {"tiny.pdparams.lock"}


WHOLE = {"tiny.pdparams", "tiny.pdparams.sha256"}
PART = {"tiny.pdparams.part", "tiny.pdparams.part.version"}


def test_downloads_once(server, cache):
    path = fetch(server.url)
    assert path == cache / "tiny.pdparams"
    assert path.read_bytes() == CONTENT
    assert names(cache) == WHOLE
    assert fetch(server.url) == path
    assert server.asked == [None]


def test_the_hash_lies_beside_the_file(server, cache):
    fetch(server.url)
    assert (cache / "tiny.pdparams.sha256").read_text() == f"{hashlib.sha256(CONTENT).hexdigest()}  tiny.pdparams\n"


def test_another_folder(server, cache, tmp_path):
    assert fetch(server.url, cache_dir=tmp_path / "here") == tmp_path / "here" / "tiny.pdparams"
    assert not cache.exists()


def test_a_cut_connection_goes_on_where_it_stopped(server, cache):
    server.cuts = [300_000, 1, 200_000]
    assert fetch(server.url).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=300000-", "bytes=300001-", "bytes=500001-"]
    assert names(cache) == WHOLE


def test_a_later_call_goes_on_as_well(server, cache):
    server.cuts = [300_000] + [0] * 9
    with pytest.raises(UserError, match=r"cut off after 300000 of 1048576 bytes|IncompleteRead"):
        fetch(server.url)
    assert names(cache) == PART
    server.cuts, server.asked = [], []
    assert fetch(server.url).read_bytes() == CONTENT
    assert server.asked == ["bytes=300000-"]


@pytest.mark.parametrize("modified", ["Tue, 01 Oct 2024 10:00:00 GMT", None])
def test_without_a_strong_etag(server, cache, modified):
    server.etag, server.modified, server.cuts = 'W/"one"', modified, [300_000]
    assert fetch(server.url).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=300000-" if modified else None]


def test_a_server_without_ranges(server, cache):
    server.ranges, server.cuts = False, [300_000]
    assert fetch(server.url).read_bytes() == CONTENT


@pytest.mark.parametrize("ignores", [False, True])
def test_a_file_that_changed_between_two_parts(server, cache, ignores):
    server.cuts = [300_000] + [0] * 9
    with pytest.raises(UserError):
        fetch(server.url)
    server.content, server.etag, server.cuts = CONTENT[::-1], '"two"', []
    server.ignores_if_range = ignores
    assert fetch(server.url).read_bytes() == CONTENT[::-1]


def test_a_part_longer_than_the_file(server, cache):
    server.cuts = [300_000] + [0] * 9
    with pytest.raises(UserError):
        fetch(server.url)
    server.content, server.cuts = CONTENT[:1000], []
    assert fetch(server.url).read_bytes() == CONTENT[:1000]


def test_a_part_that_starts_elsewhere(server, cache):
    server.cuts, server.wrong_start = [300_000], 5
    assert fetch(server.url).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=300000-", None]


def test_a_server_that_does_not_say_the_length(server, cache):
    server.says_length = False
    assert fetch(server.url).read_bytes() == CONTENT


@pytest.mark.parametrize(("status", "reason"), [(404, "HTTP 404 Not Found"), (500, "HTTP 500 Internal Server Error")])
def test_refused_by_the_server(server, cache, status, reason):
    server.status = status
    with pytest.raises(UserError) as caught:
        fetch(server.url)
    assert str(caught.value) == (
        f"cannot download {server.url} ({reason}); download it elsewhere and pass --pretrained /path/to/file.pdparams, "
        "or train from scratch with --pretrained none"
    )
    assert names(cache) == set()


def test_a_web_page_is_no_file(server, cache):
    server.kind = "text/html; charset=utf-8"
    with pytest.raises(UserError, match="web page instead of the file"):
        fetch(server.url)
    assert names(cache) == set()


def test_a_connection_that_brings_nothing_is_given_up(server, cache):
    server.cuts = [0] * 9
    with pytest.raises(UserError, match="cannot download"):
        fetch(server.url)
    assert len(server.asked) == 1


def test_a_dead_connection(server, cache, monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT", 0.3)
    server.cuts = [1000] + [0] * 9
    server.flows.clear()
    with pytest.raises(UserError, match=r"\(no answer within 0 s\); download it elsewhere"):
        fetch(server.url)


def test_no_server(cache):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(UserError, match=r"\(Connection refused\); download it elsewhere"):
        fetch(f"http://127.0.0.1:{port}/tiny.pdparams")


def test_no_network(cache, monkeypatch):
    def offline(*_: object, **__: object) -> None:
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", offline)
    with pytest.raises(UserError, match=r"\(no network, or the name of the server is unknown\); download it elsewhere"):
        fetch("https://nowhere.invalid/tiny.pdparams")


def test_a_changed_file_is_downloaded_again(server, cache, capsys):
    path = fetch(server.url)
    path.write_bytes(CONTENT[:-1] + b"x")
    os.utime(path, (1, 1))
    assert fetch(server.url).read_bytes() == CONTENT
    assert len(server.asked) == 2
    assert f"{path}: changed since it was downloaded" in capsys.readouterr().err


def test_a_copied_cache_is_as_good(server, cache):
    os.utime(fetch(server.url), (1, 1))
    assert fetch(server.url).read_bytes() == CONTENT
    assert len(server.asked) == 1
    assert (cache / "tiny.pdparams.sha256").stat().st_mtime == 1


def test_a_file_put_there_by_hand(server, cache):
    cache.mkdir()
    (cache / "tiny.pdparams").write_bytes(b"mine")
    assert fetch(server.url).read_bytes() == b"mine"
    assert server.asked == []
    assert names(cache) == WHOLE


def test_a_cache_that_cannot_be_written(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be written: .*; SEG_TUNE_CACHE names another folder"):
        fetch(server.url, cache_dir=tmp_path / "file" / "cache")
    assert server.asked == []


@pytest.mark.skipif(sys.platform == "win32", reason="homes of POSIX")
def test_a_home_that_cannot_be_written(server, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.delenv("SEG_TUNE_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    path = fetch(server.url)
    assert path == tmp_path / f"seg-tune-{os.getuid()}" / "tiny.pdparams"
    assert path.read_bytes() == CONTENT
    first, *_ = capsys.readouterr().err.splitlines()
    assert first.endswith(f"cannot be written; weights are kept in {path.parent} (SEG_TUNE_CACHE names another folder)")
    assert fetch(server.url) == path
    assert capsys.readouterr().err == ""
    assert server.asked == [None]


def test_a_read_only_cache_is_used_where_its_hashes_hold(server, cache, monkeypatch):
    """As in an image whose files have lost their times, or were put there by hand."""
    cache.mkdir()
    path = cache / "tiny.pdparams"
    path.write_bytes(b"mine")
    monkeypatch.setattr("toolkit.weights.fetch.is_writable", lambda folder: folder != cache)
    assert fetch(server.url) == path
    (cache / "tiny.pdparams.sha256").write_text(f"{hashlib.sha256(b'mine').hexdigest()}  tiny.pdparams\n")
    os.utime(path, (1, 1))
    assert fetch(server.url) == path
    assert names(cache) == {"tiny.pdparams", "tiny.pdparams.sha256"}
    assert server.asked == []


@pytest.mark.skipif(sys.platform == "win32", reason="no locks there")
def test_two_processes_download_once(server, cache):
    server.flows.clear()
    code = f"from toolkit.weights.fetch import fetch; print(fetch({server.url!r}))"
    first, second = (
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    )
    said = {process.stderr.readline() for process in (first, second)}
    assert said == {
        "downloading tiny.pdparams\n",
        "another process is downloading tiny.pdparams; waiting for it\n",
    }
    server.flows.set()
    for process in (first, second):
        assert process.communicate(timeout=60)[0] == f"{cache / 'tiny.pdparams'}\n"
    assert server.asked == [None]


def test_a_bar_on_a_terminal(server, cache, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    fetch(server.url)
    assert "tiny.pdparams" in capsys.readouterr().err


def test_off_a_terminal_one_line_or_none(server, cache, capsys):
    fetch(server.url)
    assert capsys.readouterr().err == "downloading tiny.pdparams\n"
    (cache / "tiny.pdparams").unlink()
    fetch(server.url, progress=False)
    assert capsys.readouterr().err == ""


def test_pretrained_none_and_paths(tmp_path, monkeypatch):
    path = tmp_path / "mine.pdparams"
    path.write_bytes(b"")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve_pretrained("none", "SOLOv2") is None
    assert resolve_pretrained(str(path), "SOLOv2") == path
    assert resolve_pretrained("~/mine.pdparams", "SOLOv2") == path
    with pytest.raises(UserError, match=r"--pretrained offical: no such file; give official, none or a \.pdparams"):
        resolve_pretrained("offical", "SOLOv2")


@pytest.mark.parametrize("inside", ["best_model/best_model.pdparams", "best_model.pdparams", "model_final.pdparams"])
def test_pretrained_of_a_training_s_folder(tmp_path, inside):
    file = tmp_path / "output" / inside
    file.parent.mkdir(parents=True)
    file.write_bytes(b"")
    assert resolve_pretrained(str(tmp_path / "output"), "SOLOv2") == file
    # As PaddleDetection's configs name weights.
    assert resolve_pretrained(str(file.with_suffix("")), "SOLOv2") == file
    assert weights_file(tmp_path) is None


def test_pretrained_official(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "fetch", lambda url: tmp_path / Path(url).name)
    assert resolve_pretrained("official", "SOLOv2") == tmp_path / "SOLOv2_pretrained.pdparams"


def test_every_address_gives_a_file_of_its_own():
    files = {model.url.rpartition("/")[2] for model in MODELS.values()}
    assert len(files) == len(MODELS)
    assert all(file.endswith(".pdparams") for file in files)
