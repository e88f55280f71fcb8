"""A request's body: read no further, and waited for no longer, than allowed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

from fastapi import Request

from toolkit.serve.limits import Limits, RefusedError

LINGER = 5.0
"""Seconds in which the rest of a refused body may come."""


class Body:
    def __init__(self, request: Request, limits: Limits) -> None:
        self._request, self._limits = request, limits
        self._begun = self._ended = False

    async def read(self) -> bytes:
        """All of it.

        Raises RefusedError (400, 408, 413).
        """
        seconds = self._limits.seconds
        try:
            return await asyncio.wait_for(self._read(), seconds)
        except asyncio.TimeoutError:
            self._ended = True
            raise RefusedError(408, f"the body did not come within {seconds:g} seconds") from None

    async def discard(self) -> None:
        """Take in the rest, within limits: where a connection is closed before, its client, which is still sending,
        may never see the answer. Not where it waits to be asked for it."""
        if not self._begun and self._request.headers.get("expect", "").lower() == "100-continue":
            return
        with suppress(asyncio.TimeoutError, RefusedError):
            await asyncio.wait_for(self._discard(), LINGER)

    async def _read(self) -> bytes:
        most = self._limits.body_bytes
        too_large = RefusedError(413, f"the body is larger than {most} bytes")
        length = self._request.headers.get("content-length", "0")
        if length.isdigit() and int(length) > most:
            raise too_large
        body = bytearray()
        async for part in self._parts():
            body += part
            if len(body) > most:
                raise too_large
        return bytes(body)

    async def _discard(self) -> None:
        left = 2 * self._limits.body_bytes
        async for part in self._parts():
            left -= len(part)
            if left < 0:
                return

    async def _parts(self) -> AsyncIterator[bytes]:
        self._begun = True
        while not self._ended:
            message = await self._request.receive()
            if message["type"] == "http.disconnect":
                self._ended = True
                raise RefusedError(400, "the body ends early")
            self._ended = not message.get("more_body", False)
            yield message.get("body", b"")
