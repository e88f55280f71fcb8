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

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc"),
    pytest.mark.parametrize("project", ["Mask-RT-DETR-S"], indirect=True),
]
SECONDS = float(os.environ.get("OVERLOAD_SECONDS", "300"))


def body_of(project: Project) -> bytes:
    picture = project.folder / "my data" / "images" / "val 0.png"
    return json.dumps({"image": base64.b64encode(picture.read_bytes()).decode()}).encode()


def port_of(service: Service) -> int:
    return int(service.url.rpartition(":")[2])


def resident(process: int) -> int:
    return int(Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_at_twice_its_capacity(project: Project) -> None:
    body = body_of(project)
    with service_of(project, "--seconds", "0.2") as service:
        [worker], port = service.workers, port_of(service)
        asyncio.run(clients(port, body, count=4, seconds=10))
        calm = asyncio.run(clients(port, body, count=4, seconds=20))
        capacity = len(part(calm, 200)) / 20
        print(f"\ncapacity: {describe(calm, 20)}")
        # Memory that is taken under load is kept: what counts is whether it grows on.
        asyncio.run(clients(port, body, count=64, seconds=SECONDS / 10, per_second=2 * capacity))
        before = resident(worker)
        outcomes = asyncio.run(clients(port, body, count=64, seconds=SECONDS, per_second=2 * capacity))
        growth = resident(worker) / before - 1
        assert service.workers == [worker]
    print(
        f"overload: {len(outcomes)} requests: {describe(outcomes, SECONDS)}; memory {growth:+.2%} of {before >> 20} MB"
    )
    assert {outcome.status for outcome in outcomes} == {200, 503}
    assert np.percentile(part(outcomes, 503), 99) < 0.05
    assert len(part(outcomes, 200)) / SECONDS > 0.9 * capacity
    assert growth < 0.02


def in_background(port: int, body: bytes, *, count: int, seconds: float) -> tuple[threading.Thread, list[Outcome]]:
    outcomes: list[Outcome] = []
    thread = threading.Thread(
        target=lambda: outcomes.extend(asyncio.run(clients(port, body, count=count, seconds=seconds)))
    )
    thread.start()
    return thread, outcomes


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
