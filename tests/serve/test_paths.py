"""Nothing but the page's own files is served, and no picture is read from the service's disk."""

from __future__ import annotations

import http.client
import json
from pathlib import Path

import pytest

from tests.serve.conftest import encoded
from tests.serve.test_fuzz import exchange
from toolkit.serve.app import ENDPOINT, PAGE

UP = [
    *("..", "%2e%2e", "%2E%2E", ".%2e", "%2e.", "%252e%252e", "..%00", "...", "..;", "..%20", "%c0%ae%c0%ae"),
    *("%uff0e%uff0e", "%e2%80%a5", "..%09", "%2e%2e%2f%2e%2e", "..\\..", "..%5c..", "./..", ".//..", "x/../.."),
]
"""Ways to write: the folder above."""
PATHS = [
    *(f"/page/{up}/app.py" for up in UP),
    *("/page/..%2fapp.py", "/page/..%5capp.py", "/page/..\\app.py", "/page%2f..%2fapp.py", "/page/../app.py?x=page.js"),
    *(
        f"/page/{PAGE.parent}/app.py",
        f"/page/{PAGE.parent}/app.py".replace("/", "%2f"),
        f"/page/file://{PAGE.parent}/app.py",
    ),
    *("/page/app.py%00.js", "/page/page.js/../../app.py", "http://here/page/../app.py", "/../toolkit/serve/app.py"),
    *("/app.py", "//app.py", "/page//../app.py", "/sample/../app.py", "/page/" + "../" * 200 + "etc/passwd"),
    *("/page/" + "x" * 5000, "/page/", "/page/.", "/page/%00", "/page/~root", "/page/con"),
]
PICTURES = [
    "/tmp/picture.png",
    "file:///{0}",
    "FILE://{0}",
    "{0}",
    "../{0}",
    "file:{0}",
    "ftp://127.0.0.1/{0}",
    "data:{0}",
    "~/{0}",
]


def test_there_are_forty_forms() -> None:
    assert len({*PATHS, *PICTURES}) >= 40


@pytest.mark.parametrize("path", PATHS)
def test_the_folder_of_the_page_is_not_left(port: int, path: str) -> None:
    said = exchange(port, f"GET {path} HTTP/1.0\r\n\r\n".encode())
    assert said.startswith((b"HTTP/1.1 404", b"HTTP/1.1 400", b"HTTP/1.1 405")), said[:200]
    assert b"import" not in said
    assert b"root:" not in said


@pytest.mark.parametrize("form", PICTURES)
def test_no_picture_comes_from_the_service_s_disk(port: int, tmp_path: Path, form: str) -> None:
    file = tmp_path / "picture.png"
    file.write_bytes(encoded())
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("POST", ENDPOINT, json.dumps({"image": form.format(file)}))
    assert connection.getresponse().status == 422


def test_the_page_s_files_are_served(port: int) -> None:
    assert exchange(port, b"GET /page/page.css HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200")
