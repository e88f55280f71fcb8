"""AP over HTTP, of this package's service and of servers that misbehave; and the docs' client that needs a library."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn

from tests.pictures import write_dataset
from tests.serve.conftest import Fixed, encoded, found_in
from toolkit.data.coco import Split, find_dataset
from toolkit.data.masks import full
from toolkit.errors import UserError
from toolkit.serve.app import Settings, create_app
from toolkit.serve.client import ask_for, evaluate_served

Answer = Callable[[dict[str, Any]], tuple[int, Any]]


@pytest.fixture
def split(tmp_path: Path) -> Split:
    folder = write_dataset(tmp_path / "data")
    for file in (folder / "annotations").iterdir():
        file.write_text(file.read_text().replace("disc", "circle").replace("square", "rectangle"))
    return find_dataset(folder).val


@contextmanager
def serving(token: str | None = None) -> Iterator[str]:
    config = uvicorn.Config(create_app(Fixed(), Settings(token=token)), port=0, log_level="error")  # type: ignore[arg-type]
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    server.should_exit = True
    thread.join()


@contextmanager
def answering(answer: Answer) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, tree = answer(body)
            data = tree if isinstance(tree, bytes) else json.dumps(tree).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_what_the_service_finds_comes_back_on_the_picture(split: Split) -> None:
    with serving() as url:
        found = dict(ask_for(split, url.rstrip("/")))
    assert list(found) == [picture.id for picture in split.pictures]
    for picture in split.pictures:
        ours, theirs = found[picture.id], found_in(np.zeros((picture.height, picture.width, 3)))
        assert ours.boxes == pytest.approx(theirs.boxes)
        assert ours.labels.tolist() == theirs.labels.tolist()
        assert ours.scores == pytest.approx(theirs.scores)
        for a, b in zip(ours.masks, theirs.masks, strict=True):
            assert np.array_equal(full(a, ours.size), full(b, ours.size))


def test_figures_are_written(split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(token="secret") as url:
        with pytest.raises(UserError, match=r"val 0\.png: refused: HTTP 401"):
            evaluate_served(url, data=tmp_path / "data", output=tmp_path / "no")
        monkeypatch.setenv("SEG_TUNE_TOKEN", "secret")
        metrics = evaluate_served(url, data=tmp_path / "data", output=tmp_path)
    assert json.loads((tmp_path / "evaluate_result.json").read_text())["url"] == url
    assert (metrics.pictures, metrics.detections) == (4, 8)
    assert not (tmp_path / "no").exists()


def instance(**changes: Any) -> dict[str, Any]:
    """3 x 2 pixels from (10, 20) on, all set."""
    one = {
        "bbox": [9.6, 20.4, 13.2, 22.1],
        "categoryId": 0,
        "categoryName": "circle",
        "score": 0.5,
        "mask": {"rleResult": "06", "size": [2, 3]},
    }
    return {**one, **changes}


def result(*instances: Any) -> dict[str, Any]:
    # PaddleX's server sends no key that is not its own.
    return {
        "logId": "1",
        "errorCode": 0,
        "errorMsg": "Success",
        "result": {"instances": list(instances), "image": None},
    }


def test_paddlex_is_asked_as_it_wants_and_placed_by_the_rounded_box(split: Split) -> None:
    asked = []

    def answer(body: dict[str, Any]) -> tuple[int, Any]:
        asked.append(body)
        return 200, result(instance(score=0.1), instance(categoryName="rectangle", score=0.9))

    with answering(answer) as url:
        found = dict(ask_for(split, url))
    assert {key for body in asked for key in body} == {"image", "threshold", "visualize"}
    assert sorted(base64.b64decode(body["image"]) for body in asked) == sorted(
        picture.path.read_bytes() for picture in split.pictures
    )
    first = found[split.pictures[0].id]
    assert first.labels.tolist() == [1, 0], "the best comes first, and classes go by their names"
    assert np.argwhere(full(first.masks[0], first.size)).tolist() == [[y, x] for y in (20, 21) for x in (10, 11, 12)]


@pytest.mark.parametrize(
    ("status", "tree", "said"),
    [
        (500, {"errorMsg": "out of memory"}, "HTTP 500 out of memory"),
        (404, b"<html>", "HTTP 404 Not Found"),
        (200, b"<html>", "no JSON"),
        (200, {"results": []}, "not an answer by PaddleX's contract"),
        (200, [1], "not an answer by PaddleX's contract"),
        (200, result({"bbox": [1, 2, 3, 4]}), "not an answer by PaddleX's contract"),
        (200, result(instance(categoryName="cat")), "finds cat, which is no class of the data .circle, rectangle."),
        (200, result(instance(mask={"png": "", "size": [2, 3]})), "without rleResult"),
        (200, result(instance(mask={"rleResult": "0_", "size": [2, 3]})), "rleResult: "),
        (200, result(instance(bbox=[62, 20, 65, 22])), "reaches out of the picture"),
    ],
)
def test_other_answers_are_named(status: int, tree: Any, said: str, split: Split) -> None:
    with answering(lambda _: (status, tree)) as url, pytest.raises(UserError, match=said):
        list(ask_for(split, url))


def test_nobody_there(split: Split, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is the service running there"):
        list(ask_for(split, "http://127.0.0.1:9"))
    with pytest.raises(UserError, match="must begin with http"):
        evaluate_served("localhost:8080", data=tmp_path / "data")


def test_the_docs_client_in_c_sharp(tmp_path: Path) -> None:
    if not (shutil.which("mcs") and shutil.which("pkg-config")):
        pytest.skip("Mono is not installed")
    if subprocess.run(["pkg-config", "--exists", "newtonsoft-json"]).returncode:
        pytest.skip("Newtonsoft.Json is not installed")
    docs = Path(__file__).parents[2] / "docs" / "serving.md"
    [code] = re.findall(r"```csharp\n(.*?)```", docs.read_text(encoding="utf-8"), re.DOTALL)
    [command] = re.findall(r"^// (mcs [^;]+);", code, re.MULTILINE)
    (tmp_path / "Client.cs").write_text(code, encoding="utf-8")
    (tmp_path / "picture.png").write_bytes(encoded())
    subprocess.run(command.split(), cwd=tmp_path, check=True, timeout=60)
    with serving() as url:
        run = ["mono", "Client.exe", url.rstrip("/"), "picture.png"]
        said = subprocess.run(run, cwd=tmp_path, check=True, timeout=60, capture_output=True, text=True).stdout
    assert [line.split()[0] for line in said.splitlines()] == ["circle", "rectangle"]
    assert (tmp_path / "drawn.jpg").read_bytes().startswith(b"\xff\xd8")
