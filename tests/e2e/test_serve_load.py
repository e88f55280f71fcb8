"""The service under load: too many clients, workers that are killed, and ends. Minutes:

pytest -m slow -n 0 -s tests/e2e/test_serve_load.py
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from tests.e2e.conftest import Project
from tests.e2e.load import Outcome, clients, describe, part
from tests.e2e.test_serve import Service, service_of
from tests.export.conftest import recipe_of
from tests.golden import reference
from toolkit.data.images import read_rgb
from toolkit.export.run import export_model
from toolkit.models import build_model
from toolkit.pipeline.config import dump_pipeline_config

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc"),
]
tiny = pytest.mark.parametrize("project", ["Mask-RT-DETR-S"], indirect=True)
PICTURE = reference.HERE / "data" / "images" / "0.png"
SECONDS = float(os.environ.get("OVERLOAD_SECONDS", "300"))


def body_of(project: Project) -> bytes:
    picture = project.folder / "my data" / "images" / "val 0.png"
    return json.dumps({"image": base64.b64encode(picture.read_bytes()).decode()}).encode()


def port_of(service: Service) -> int:
    return int(service.url.rpartition(":")[2])


def resident(process: int) -> int:
    return int(Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def full_size(tmp_path: Path) -> Project:
    """Mask-RT-DETR-S at its own size, with weights that nobody trained."""
    name = "Mask-RT-DETR-S"
    model = build_model(name, reference.CLASSES)
    reference.load(model, reference.figures(name))
    recipe = recipe_of(name, size=(640, 640))
    export_model(model, recipe=recipe, out=tmp_path / "exported", pictures=[read_rgb(PICTURE)], source="golden")
    text = dump_pipeline_config(model_name=name, model_dir=tmp_path / "exported", threshold=0.5)
    (tmp_path / "pipeline.yaml").write_text(text, encoding="utf-8")
    return Project(tmp_path, name, {})


def test_at_twice_its_capacity_refusals_come_at_once(full_size: Project) -> None:
    body = json.dumps({"image": base64.b64encode(PICTURE.read_bytes()).decode()}).encode()
    with service_of(full_size, "--seconds", "10") as service:
        capacity, outcomes = overload(service, body)
    assert {outcome.status for outcome in outcomes} == {200, 503}
    assert np.percentile(part(outcomes, 503), 99) < 0.05
    assert len(part(outcomes, 200)) / SECONDS > 0.9 * capacity


@tiny
def test_at_twice_its_capacity_memory_does_not_grow(project: Project) -> None:
    """A tiny network, for many requests. It keeps Python itself busy, so that refusals have to wait for their turn."""
    with service_of(project, "--seconds", "0.2") as service:
        [worker] = service.workers
        # Memory that is taken under load is kept: what counts is whether it grows on.
        overload(service, body_of(project), seconds=SECONDS / 10)
        before = resident(worker)
        capacity, outcomes = overload(service, body_of(project))
        growth = resident(worker) / before - 1
        assert service.workers == [worker]
    print(f"memory {growth:+.2%} of {before >> 20} MB")
    assert {outcome.status for outcome in outcomes} == {200, 503}
    assert len(part(outcomes, 200)) / SECONDS > 0.9 * capacity
    assert growth < 0.02


def overload(service: Service, body: bytes, *, seconds: float = SECONDS) -> tuple[float, list[Outcome]]:
    """How many requests a second 4 clients are answered, and what 64 see that ask twice as often."""
    port = port_of(service)
    asyncio.run(clients(port, body, count=4, seconds=10))
    start = time.perf_counter()
    calm = asyncio.run(clients(port, body, count=4, seconds=20))
    took = time.perf_counter() - start  # With those that were begun before the end.
    capacity = len(part(calm, 200)) / took
    outcomes = asyncio.run(clients(port, body, count=64, seconds=seconds, per_second=2 * capacity))
    print(f"\ncapacity: {describe(calm, took)}\n{len(outcomes)} requests: {describe(outcomes, seconds)}")
    return capacity, outcomes


def in_background(port: int, body: bytes, *, count: int, seconds: float) -> tuple[threading.Thread, list[Outcome]]:
    outcomes: list[Outcome] = []
    thread = threading.Thread(
        target=lambda: outcomes.extend(asyncio.run(clients(port, body, count=count, seconds=seconds)))
    )
    thread.start()
    return thread, outcomes


@tiny
def test_when_a_worker_is_killed_under_load_the_service_goes_on(project: Project) -> None:
    with service_of(project, "--workers", "2") as service:
        while len(service.workers) < 2:
            time.sleep(0.1)
        time.sleep(10)
        thread, outcomes = in_background(port_of(service), body_of(project), count=8, seconds=40)
        for _ in range(3):
            time.sleep(3)
            before = service.workers
            os.kill(before[0], signal.SIGKILL)
            while set(service.workers) <= set(before):
                time.sleep(0.1)
            time.sleep(5)
        thread.join()
    lost = [outcome for outcome in outcomes if outcome.status != 200]
    print(f"\n{len(outcomes)} requests, {len(lost)} lost with three workers")
    # Not more than the killed ones had at hand.
    assert len(lost) <= 3 * 8
    assert outcomes[-1].status == 200


@tiny
def test_on_sigterm_every_accepted_request_is_answered(project: Project) -> None:
    body = body_of(project)
    answered = refused = 0
    for turn in range(20):
        with service_of(project) as service:
            thread, outcomes = in_background(port_of(service), body, count=16, seconds=2.5)
            time.sleep(1 + turn / 20)
            service.process.send_signal(signal.SIGTERM)
            assert service.process.wait(30) == 0
            thread.join()
        sent = [outcome for outcome in outcomes if outcome.sent]
        assert {outcome.status for outcome in sent} == {200}, f"{turn}: {describe(sent, 1)}"
        answered += len(sent)
        refused += len(outcomes) - len(sent)
    print(f"\n{answered} requests answered, {refused} connections refused after the end")
    assert refused
