"""Pictures from the net, for services that are told from which hosts.

A URL in a request makes the service ask on the client's behalf, also for what only the service can reach. So each host
must be on a list, the addresses it has now must all be public, the connection goes to one of just those, and redirects
are not followed.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Collection
from urllib.parse import SplitResult, urlsplit

import httpx

from toolkit.serve.limits import Limits, RefusedError

PORTS = {"http": 80, "https": 443}


def is_url(text: str) -> bool:
    return text[:8].lower().startswith(("http://", "https://"))


async def fetch(url: str, hosts: Collection[str], limits: Limits) -> bytes:
    """What lies at `url`.

    Raises RefusedError: 403 for a place that is not allowed, 422 for one that has nothing to give, 413 for too much.
    """
    if not hosts:
        raise RefusedError(403, "image: URLs are switched off; send the file in Base64")
    try:
        parts = urlsplit(url)
        usual = PORTS[parts.scheme.lower()]
        port = usual if parts.port is None else parts.port
    except (ValueError, KeyError):
        raise RefusedError(422, "image: not a URL") from None
    host = (parts.hostname or "").rstrip(".").lower()
    if host not in hosts or parts.username is not None or port != usual:
        raise RefusedError(403, f"image: {host or 'no host'}: not one that pictures may come from")
    try:
        return await asyncio.wait_for(_download(parts, host, port, limits), limits.url_seconds)
    except (asyncio.TimeoutError, httpx.HTTPError, OSError):
        raise RefusedError(422, f"image: nothing could be had from {host}") from None


async def _download(parts: SplitResult, host: str, port: int, limits: Limits) -> bytes:
    address = await _public_address(host, port)
    shown = f"[{address}]" if ":" in address else address
    pinned = parts._replace(netloc=f"{shown}:{port}", fragment="").geturl()
    async with (
        httpx.AsyncClient(follow_redirects=False, trust_env=False, timeout=limits.url_seconds) as client,
        client.stream("GET", pinned, headers={"Host": host}, extensions={"sni_hostname": host}) as response,
    ):
        if response.status_code != 200:
            raise RefusedError(422, f"image: {host} answered with status {response.status_code}")
        data = bytearray()
        async for part in response.aiter_raw():
            data += part
            if len(data) > limits.url_bytes:
                raise RefusedError(413, f"image: {host} sent more than {limits.url_bytes} bytes")
        return bytes(data)


async def _public_address(host: str, port: int) -> str:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = [str(entry[4][0]).partition("%")[0] for entry in found]
    if not addresses or not all(_is_public(address) for address in addresses):
        raise RefusedError(403, f"image: {host} is not in the public net")
    return addresses[0]


def _is_public(address: str) -> bool:
    ip = ipaddress.ip_address(address)
    # IPv6 addresses that carry one of IPv4 on to somewhere else.
    tunnel = isinstance(ip, ipaddress.IPv6Address) and (
        ip.ipv4_mapped or ip.sixtofour or ip.teredo or ip in ipaddress.ip_network("64:ff9b::/96")
    )
    return ip.is_global and not ip.is_multicast and not tunnel
