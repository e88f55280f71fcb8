"""The service as it is started from the command line, and the clients that its docs show."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.e2e.conftest import Project, run_in

# One model is enough: what differs between them ends in the pipeline.
pytestmark = pytest.mark.parametrize("project", ["Mask-RT-DETR-S"], indirect=True)

DOCS = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")


class Service:
    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process, self.url = process, url

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self.url}{path}", timeout=30) as response:
            return json.load(response)

    def post(self, **body: Any) -> tuple[int, Any]:
        request = urllib.request.Request(
            f"{self.url}/instance-segmentation", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def wait(self) -> None:
        deadline = time.monotonic() + 60
        while not self.ready:
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.1)

    @property
    def ready(self) -> bool:
        try:
            return bool(self.get("/ready")["errorCode"] == 0)
        except OSError:
            return False

    @property
    def workers(self) -> list[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text(encoding="ascii")
        lines = {int(child): Path(f"/proc/{child}/cmdline").read_bytes() for child in children.split()}
        return [child for child, line in lines.items() if b"spawn_main" in line]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def service_of(project: Project, *options: str) -> Iterator[Service]:
    port = free_port()
    command = [sys.executable, "-m", "toolkit.cli.main", "serve", "--pipeline", "pipeline.yaml", "--port", str(port)]
    process = subprocess.Popen(
        [*command, *options], cwd=project.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        service = Service(process, f"http://127.0.0.1:{port}")
        service.wait()
        yield service
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


@pytest.fixture(scope="module")
def service(project: Project) -> Iterator[Service]:
    with service_of(project) as service:
        yield service


@pytest.fixture
def picture(project: Project) -> Path:
    return project.folder / "my data" / "images" / "val 0.png"


def test_it_finds_what_predict_finds(service: Service, project: Project, picture: Path, tmp_path: Path) -> None:
    status, tree = service.post(image=base64.b64encode(picture.read_bytes()).decode(), threshold=0.05)
    assert status == 200
    run_in(
        project.folder,
        *("predict", "--pipeline", "pipeline.yaml", "--input", str(picture), "--threshold", "0.05"),
        *("--save-path", str(tmp_path)),
    )
    [saved] = tmp_path.rglob("*.json")
    boxes = json.loads(saved.read_text(encoding="utf-8"))["boxes"]
    found = tree["result"]["instances"]
    assert [one["categoryName"] for one in found] == [box["label"] for box in boxes]
    assert [one["score"] for one in found] == pytest.approx([box["score"] for box in boxes], abs=1e-5)


def test_the_sample_is_replayed(service: Service, project: Project) -> None:
    said = run_in(project.folder, "serve", "--pipeline", "pipeline.yaml", "--self-test").stdout
    assert "rows matched" in said
    request, golden = (
        json.loads((project.run / "inference" / "sample" / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("request", "answer")
    )
    status, tree = service.post(**request)
    assert (status, tree["logId"]) == (200, golden["logId"])
    pairs = list(zip(tree["result"]["instances"], golden["result"]["instances"], strict=False))
    assert sum(abs(a["score"] - b["score"]) < 1e-3 for a, b in pairs) >= 0.9 * len(pairs) > 0
    with urllib.request.urlopen(f"{service.url}/sample", timeout=30) as response:
        assert response.headers["content-type"] == "image/png"


def test_an_export_that_finds_something_else_is_not_served(project: Project, tmp_path: Path) -> None:
    shutil.copytree(project.run / "inference", tmp_path / "inference")
    file = tmp_path / "inference" / "sample" / "answer.json"
    tree = json.loads(file.read_text(encoding="utf-8"))
    for row in tree["result"]["instances"]:
        row["score"] /= 2
    file.write_text(json.dumps(tree), encoding="utf-8")
    serve = ("serve", "--pipeline", "inference", "--engine", "paddle", "--port", str(free_port()))
    for command in ((*serve, "--self-test"), (*serve, "--workers", "2")):
        said = run_in(tmp_path, *command, code=2).stderr
        assert [line for line in said.splitlines() if "self-test failed" in line] == [said.splitlines()[-1]]


def client(language: str) -> str:
    [code] = re.findall(rf"```{language}\n(.*?)```", DOCS, re.DOTALL)
    return code


COMPILERS = {
    "python": ("client.py", [sys.executable, "client.py"]),
    "javascript": ("client.js", ["node", "client.js"]),
    "php": ("client.php", ["php", "client.php"]),
    "go": ("client.go", ["go", "run", "client.go"]),
    "java": ("Client.java", ["java", "Client.java"]),
}
"""How to run what the docs show; C# is tested where Mono is (tests/serve/test_client.py), C++ is compiled by hand."""


@pytest.mark.parametrize("language", COMPILERS)
def test_the_clients_of_the_docs(service: Service, picture: Path, tmp_path: Path, language: str) -> None:
    name, command = COMPILERS[language]
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    (tmp_path / name).write_text(client(language), encoding="utf-8")
    environment = {**os.environ, "GOCACHE": str(tmp_path / "go")} if language == "go" else None
    subprocess.run([*command, service.url, str(picture)], cwd=tmp_path, check=True, timeout=120, env=environment)
    assert Image.open(tmp_path / "drawn.jpg").size == Image.open(picture).size


def test_a_request_that_offers_http_2_keeps_its_body(service: Service, picture: Path) -> None:
    """As Java's client sends it."""
    body = json.dumps({"image": base64.b64encode(picture.read_bytes()).decode()}).encode()
    head = (
        "POST /instance-segmentation HTTP/1.1\r\nHost: here\r\nConnection: Upgrade, HTTP2-Settings\r\n"
        "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\nUpgrade: h2c\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", int(service.url.rpartition(":")[2])), timeout=30) as connection:
        connection.sendall(head.encode() + body)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_figures_are_those_of_all_workers(service: Service) -> None:
    assert service.post(image="%%%")[0] == 422
    with urllib.request.urlopen(f"{service.url}/metrics", timeout=30) as response:
        lines = response.read().decode().splitlines()
    figures = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert float(figures['segtune_requests_total{status="422"}']) >= 1
    held = [key for key in figures if key.startswith("segtune_resident_memory_bytes")]
    assert sorted(held) == sorted(f'segtune_resident_memory_bytes{{pid="{worker}"}}' for worker in service.workers)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_worker_that_dies_is_replaced(service: Service, picture: Path) -> None:
    [worker] = service.workers
    os.kill(worker, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while service.workers in ([], [worker]):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    service.wait()
    assert service.post(image=base64.b64encode(picture.read_bytes()).decode())[0] == 200


def test_on_sigterm_what_was_accepted_is_answered(project: Project, picture: Path) -> None:
    text = base64.b64encode(picture.read_bytes()).decode()
    answers: list[int] = []
    with service_of(project) as service:

        def ask() -> None:
            answers.append(service.post(images=[text] * 4, visualize=False)[0])

        threads = [threading.Thread(target=ask) for _ in range(6)]
        for thread in threads:
            thread.start()
        time.sleep(0.3)
        service.process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join()
        assert service.process.wait(30) == 0
    assert answers == [200] * 6


def test_an_address_in_use_is_said_in_one_line(service: Service, project: Project) -> None:
    port = service.url.rpartition(":")[2]
    said = run_in(project.folder, "serve", "--pipeline", "pipeline.yaml", "--port", port, code=2).stderr
    assert said.startswith("error: --host 127.0.0.1 --port")
    assert len(said.splitlines()) == 1
