"""Whatever is sent, the service answers soon, never with a 500, and answers the next one as well."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.serve.conftest import encoded, text_of
from toolkit.serve.app import ENDPOINT

SECONDS = 20.0
"""After which a request counts as hanging."""
STATUSES = {200, 403, 413, 422}
FILES = [encoded(kind=kind) for kind in ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "TGA", "ICO", "PCX")]
REQUEST = json.dumps({"image": text_of(FILES[0]), "threshold": 0.5, "visualize": False, "maskFormat": "box"}).encode()

EXTREMES = [b"\xff\xff\xff\xff", bytes(4), b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f"]

at_length = pytest.mark.parametrize("rounds", [1, pytest.param(124, marks=pytest.mark.slow)])
"""20,000 requests together."""


def run(check: Callable[..., None], strategy: st.SearchStrategy[Any], examples: int, rounds: int) -> None:
    """Without looking for the smallest example, which takes long where a request hangs.

    In rounds, since Hypothesis remembers all of a round, and is slower the more that is.
    """
    quick = settings(
        max_examples=examples,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
        phases=[Phase.generate],
    )
    for number in range(rounds):
        seed(number)(quick(given(strategy)(check)))()


@st.composite
def mangled(draw: st.DrawFn, originals: list[bytes]) -> bytes:
    """One of `originals` with bytes changed, left out, put in, repeated or cut off."""
    data = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(data)))
        length = draw(st.integers(1, 40))
        how = draw(st.sampled_from(["flip", "extreme", "drop", "insert", "repeat", "cut"]))
        if how == "flip" and at < len(data):
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif how == "extreme":
            data[at : at + 4] = draw(st.sampled_from(EXTREMES))
        elif how == "drop":
            del data[at : at + length]
        elif how == "insert":
            data[at:at] = draw(st.binary(max_size=length))
        elif how == "repeat":
            data[at:at] = data[at : at + length] * draw(st.integers(1, 50))
        elif how == "cut" and draw(st.booleans()):
            del data[at:]
    return bytes(data)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
pictures = st.sampled_from([text_of(file) for file in FILES]) | mangled(FILES).map(text_of) | st.text(max_size=40)
requests = st.fixed_dictionaries(
    {},
    optional={
        "image": pictures | json_values,
        "images": st.lists(pictures | json_values, max_size=3) | json_values,
        "threshold": st.floats()
        | st.dictionaries(st.sampled_from(["circle", "rectangle", "x"]), st.floats())
        | json_values,
        "visualize": json_values,
        "maskFormat": st.sampled_from(["box", "full", "polygon", "png"]) | json_values,
        "logId": st.text(max_size=60) | json_values,
    },
).map(lambda body: json.dumps(body).encode())


def post(port: int, body: bytes) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    connection.request("POST", ENDPOINT, body)
    response = connection.getresponse()
    tree = json.loads(response.read())
    connection.close()
    assert response.status in STATUSES, tree
    assert tree["errorCode"] == (0 if response.status == 200 else response.status)
    assert ("result" in tree) == (response.status == 200)


@at_length
def test_any_file(port: int, rounds: int) -> None:
    run(lambda file: post(port, json.dumps({"image": text_of(file)}).encode()), mangled(FILES), 75, rounds)


@at_length
def test_any_json(port: int, rounds: int) -> None:
    run(lambda body: post(port, body), requests | mangled([REQUEST]), 60, rounds)


HEADS = [
    f"POST {ENDPOINT} HTTP/1.1\r\nHost: here\r\nContent-Length: {len(REQUEST)}\r\n{more}\r\n".encode() + REQUEST
    for more in (
        "",
        "Content-Type: application/json; charset=utf-8\r\nAccept: */*\r\n",
        "Authorization: Bearer x\r\nExpect: 100-continue\r\n",
        "Connection: close\r\nX-Forwarded-For: 1.2.3.4\r\n",
    )
] + [
    b"POST "
    + ENDPOINT.encode()
    + b' HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"ima\r\n0\r\n\r\n',
    b'GET /page/page.js?a=b HTTP/1.1\r\nHost: here\r\nRange: bytes=0-10\r\nIf-None-Match: "x"\r\n\r\n',
    b"GET /model HTTP/1.0\r\n\r\n",
]


def exchange(port: int, sent: bytes, *, patience: float = SECONDS) -> bytes:
    """All that the service says to these bytes until it ends the connection, or the client does after `patience`."""
    with socket.create_connection(("127.0.0.1", port), timeout=patience) as connection:
        said = b""
        with suppress(ConnectionError):
            connection.sendall(sent)
            try:
                while part := connection.recv(65536):
                    said += part
            except TimeoutError:
                connection.settimeout(SECONDS)
                connection.shutdown(socket.SHUT_WR)
                while part := connection.recv(65536):
                    said += part
        return said


@at_length
def test_any_head(port: int, rounds: int) -> None:
    def check(sent: bytes) -> None:
        said = exchange(port, sent, patience=0.05)
        assert not said.startswith((b"HTTP/1.1 500", b"HTTP/1.1 502")), said

    run(check, mangled(HEADS), 30, rounds)
    assert exchange(port, b"GET /health HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200")
