"""Clients that ask at a pace, in one thread, so that they take little from the service beside them."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import numpy as np

from toolkit.serve.app import ENDPOINT


@dataclass(frozen=True)
class Outcome:
    """Of one request."""

    status: int
    """Of HTTP; 0 where nothing came back."""
    seconds: float
    sent: bool = True
    """False where there was no connection to send it on."""


async def ask(port: int, body: bytes) -> Outcome:
    """One request, on a connection of its own."""
    start = time.perf_counter()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return Outcome(0, time.perf_counter() - start, sent=False)
    try:
        head = f"POST {ENDPOINT} HTTP/1.1\r\nHost: here\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        said = await reader.read()
        status = int(said[9:12]) if said.startswith(b"HTTP/1.1 ") else 0
    except ConnectionError:
        status = 0
    finally:
        writer.close()
    return Outcome(status, time.perf_counter() - start)


async def clients(
    port: int, body: bytes, *, count: int, seconds: float, per_second: float | None = None
) -> list[Outcome]:
    """What `count` clients see, who together ask so many times `per_second`, or each as soon as it has its answer."""
    outcomes: list[Outcome] = []
    start = time.perf_counter()
    pause = count / per_second if per_second else 0.0

    async def client(turn: float) -> None:
        while turn < seconds:
            await asyncio.sleep(start + turn - time.perf_counter())
            outcomes.append(await ask(port, body))
            turn = max(turn + pause, time.perf_counter() - start)

    await asyncio.gather(*(client(pause * number / count) for number in range(count)))
    return outcomes


def part(outcomes: list[Outcome], status: int) -> list[float]:
    """The seconds that those with this status took."""
    return [outcome.seconds for outcome in outcomes if outcome.status == status]


def describe(outcomes: list[Outcome], seconds: float) -> str:
    lines = []
    for status in sorted({outcome.status for outcome in outcomes}):
        took = part(outcomes, status)
        p50, p99 = 1000 * np.percentile(took, [50, 99])
        lines.append(f"{status}: {len(took) / seconds:.1f} a second, p50 {p50:.0f} ms, p99 {p99:.0f} ms")
    return "; ".join(lines)
