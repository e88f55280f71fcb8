"""Whoever is refused while still sending sees why."""

from __future__ import annotations

import json
import logging
import socket
import time

import pytest

from tests.serve.conftest import Fixed, listening
from toolkit.serve import body as module
from toolkit.serve.app import ENDPOINT, Settings
from toolkit.serve.limits import Limits

LARGE = 8 * 2**20


def answer_to(port: int, *, length: int, parts: int = 64) -> tuple[int, str]:
    """Status and message of a request with a body that comes in parts, on a connection for it alone."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        head = f"POST {ENDPOINT} HTTP/1.1\r\nHost: here\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
        connection.sendall(head.encode())
        for _ in range(parts):
            connection.sendall(b" " * (length // parts))
            time.sleep(0.001)
        said = b""
        while part := connection.recv(65536):
            said += part
    return int(said[9:12]), json.loads(said.partition(b"\r\n\r\n")[2])["errorMsg"]


@pytest.mark.parametrize(
    ("settings", "status", "message"),
    [
        (Settings(limits=Limits(queue=0)), 503, "too many requests are waiting; come again"),
        (Settings(token="secret"), 401, "the header Authorization must be: Bearer, and the service's token"),
        (Settings(limits=Limits(body_bytes=LARGE - 1)), 413, f"the body is larger than {LARGE - 1} bytes"),
    ],
)
def test_who_is_refused_while_sending_learns_why(settings: Settings, status: int, message: str) -> None:
    with listening(Fixed(), settings) as port:
        for _ in range(5):
            assert answer_to(port, length=LARGE) == (status, message)


def test_what_is_far_too_large_or_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINGER", 0.3)
    with listening(Fixed(), Settings(limits=Limits(queue=0))) as port:
        start = time.monotonic()
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            connection.sendall(f"POST {ENDPOINT} HTTP/1.1\r\nHost: here\r\nContent-Length: 100\r\n\r\n{{".encode())
            assert connection.recv(65536).startswith(b"HTTP/1.1 503")
        assert 0.2 < time.monotonic() - start < 5


def test_who_asks_before_sending_is_not_asked_for_what_is_refused() -> None:
    head = f"POST {ENDPOINT} HTTP/1.1\r\nHost: here\r\nExpect: 100-continue\r\nContent-Length: {LARGE}\r\n\r\n"
    with (
        listening(Fixed(), Settings(limits=Limits(queue=0))) as port,
        socket.create_connection(("127.0.0.1", port), timeout=20) as connection,
    ):
        connection.sendall(head.encode())
        assert connection.recv(65536).startswith(b"HTTP/1.1 503")


def test_a_client_that_goes_away_is_no_error_of_the_service(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "seg-tune.serve")
    with listening(Fixed(), Settings()) as port:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            connection.sendall(f"POST {ENDPOINT} HTTP/1.1\r\nHost: here\r\nContent-Length: 100\r\n\r\n{{".encode())
            time.sleep(0.2)
        deadline = time.monotonic() + 5
        while "the body ends early" not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.01)
    assert "the body ends early" in caplog.text
    assert "Traceback" not in caplog.text
