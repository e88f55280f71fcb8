"""Pictures from the net come from named, public places alone."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.serve.conftest import encoded
from toolkit.serve import urls
from toolkit.serve.limits import Limits, RefusedError
from toolkit.serve.urls import fetch, is_url

HOST = "pictures.example"


class Server(ThreadingHTTPServer):
    seen: list[tuple[str, str]]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.seen.append((self.headers["Host"], self.path))
        if self.path == "/elsewhere":
            self.send_response(302)
            self.send_header("Location", "/picture.png")
            self.end_headers()
            return
        self.send_response(404 if self.path == "/missing" else 200)
        self.end_headers()
        if self.path == "/slow":
            threading.Event().wait(3)
        if self.path == "/endless":
            for _ in range(100):
                self.wfile.write(bytes(10_000))
            return
        self.wfile.write(encoded())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server on loopback that everything would reach, whatever name or address it asks for."""
    with Server(("127.0.0.1", 0), Handler) as server:
        server.seen = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(urls, "PORTS", {"http": server.server_address[1], "https": 443})
        yield server
        server.shutdown()


def resolving(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    async def resolve(_: Any, host: str, port: int, **__: Any) -> list[Any]:
        kind = socket.AF_INET6 if ":" in addresses[0] else socket.AF_INET
        return [(kind, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(asyncio.base_events.BaseEventLoop, "getaddrinfo", resolve)


def get(url: str, *, hosts: tuple[str, ...] = (HOST,), **limits: Any) -> bytes:
    return asyncio.run(fetch(url, hosts, Limits(**limits)))


def refused(url: str, **more: Any) -> int:
    with pytest.raises(RefusedError) as caught:
        get(url, **more)
    return caught.value.status


def test_a_picture_from_an_allowed_host(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, "127.0.0.1")
    monkeypatch.setattr(urls, "_is_public", lambda _: True)
    assert get(f"http://{HOST}/picture.png?size=3") == encoded()
    # It asks the address it has checked, by the host's name.
    assert server.seen == [(HOST, "/picture.png?size=3")]


def test_redirects_errors_and_too_much_are_refused(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, "127.0.0.1")
    monkeypatch.setattr(urls, "_is_public", lambda _: True)
    assert refused(f"http://{HOST}/elsewhere") == 422
    assert [path for _, path in server.seen] == ["/elsewhere"]
    assert refused(f"http://{HOST}/missing") == 422
    assert refused(f"http://{HOST}/endless", url_bytes=50_000) == 413
    assert refused(f"http://{HOST}/slow", url_seconds=0.3) == 422


def test_none_is_allowed_by_default(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, "127.0.0.1")
    assert refused(f"http://{HOST}/picture.png", hosts=()) == 403
    assert server.seen == []


FORMS = [
    # Loopback, written in every way that libraries understand.
    *(
        "127.0.0.1",
        "127.1",
        "127.0.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "0x7f.1",
        "017700000001",
        "0",
        "0.0.0.0",
    ),
    *(
        "localhost",
        "LOCALHOST",
        "localhost.",
        "localhost.localdomain",
        "ip6-localhost",
        "127.0.0.1.",
        "127.255.255.254",
    ),
    *(
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[0:0:0:0:0:0:0:1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
    ),
    # Names that lead there, and look-alikes of the allowed one.
    *(
        "127.0.0.1.nip.io",
        "localtest.me",
        f"{HOST}.evil.example",
        f"evil-{HOST}",
        f"evil.example#{HOST}",
        f"evil.example?{HOST}",
    ),
    *(f"{HOST}@127.0.0.1", f"user:word@{HOST}", f"{HOST}:22", f"{HOST}:0", f"{HOST}\\@127.0.0.1", f"127.0.0.1\\{HOST}"),
    *(f"{HOST}%00.evil.example", f"{HOST}%2eevil.example", "\u2460\u2461\u2466.0.0.1", "127。0。0。1", "ⓛocalhost"),
    # What clouds and routers answer at.
    *("169.254.169.254", "[fd00:ec2::254]", "metadata.google.internal", "100.100.100.200", "192.168.0.1", "10.0.0.1"),
    *(
        "172.16.0.1",
        "172.31.255.255",
        "100.64.0.1",
        "198.18.0.1",
        "[fe80::1]",
        "[fc00::1]",
        "224.0.0.1",
        "255.255.255.255",
    ),
    *("", ":80", "[", "[::1", "[::1]extra", "..", " "),
]


def test_there_are_sixty_forms() -> None:
    assert len(FORMS) == len(set(FORMS)) >= 60


@pytest.mark.parametrize("form", FORMS)
def test_what_is_not_on_the_list_is_not_asked(server: Server, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    resolving(monkeypatch, "127.0.0.1")
    monkeypatch.setattr(urls, "_is_public", lambda _: True)
    assert refused(f"http://{form}/picture.png") in (403, 422)
    assert server.seen == []


@pytest.mark.parametrize(
    "address",
    [
        *(
            "127.0.0.1",
            "10.1.2.3",
            "172.20.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "0.0.0.0",
            "100.64.3.4",
            "224.0.0.1",
        ),
        *("::1", "::", "fe80::1", "fd12::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "2002:7f00:1::", "2001:0:4136::1"),
        *("64:ff9b::7f00:1", "64:ff9b::5db8:d822"),
        *("255.255.255.255", "240.0.0.1", "198.51.100.7", "ff02::1"),
    ],
)
def test_an_allowed_name_must_lead_into_the_public_net(
    server: Server, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    resolving(monkeypatch, address)
    assert refused(f"http://{HOST}/picture.png") == 403
    # Not even one of several.
    if ":" not in address:
        resolving(monkeypatch, "93.184.216.34", address)
        assert refused(f"http://{HOST}/picture.png") == 403
    assert server.seen == []


def test_public_addresses_pass() -> None:
    assert urls._is_public("93.184.216.34")
    assert urls._is_public("2606:2800:220:1:248:1893:25c8:1946")


def test_what_is_a_url() -> None:
    assert is_url("https://pictures.example/a.png")
    assert is_url("HTTP://pictures.example")
    assert not is_url("httpAAAA")
    assert not is_url("ftp://pictures.example")
