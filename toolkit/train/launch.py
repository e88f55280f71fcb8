"""One process for each of several devices of this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from typing import Any

from toolkit import cores
from toolkit.data.workers import main_hidden
from toolkit.errors import UserError

GRACE_SECONDS = 5.0
"""What the others have, when one has ended in good order, to do so as well."""


def launch(function: Callable[..., Any], devices: Sequence[str], **arguments: Any) -> Any:
    """Call `function(device=..., **arguments)` in a process for each of `devices`; return what the first returns.

    When one fails, the others are ended.

    Raises UserError with what the one that failed had to say.
    """
    endpoints = [f"127.0.0.1:{port}" for port in _free_ports(len(devices))]
    context = multiprocessing.get_context("spawn")
    processes, ends = [], []
    for rank, device in enumerate(devices):
        here, there = context.Pipe(duplex=False)
        process = context.Process(target=_run, args=(there, function, {**arguments, "device": device}))
        with _environment(_place(rank, endpoints, device)), main_hidden():
            process.start()
        there.close()
        processes.append(process)
        ends.append(here)
    with _passed_on(processes):
        try:
            return _result(processes, ends)
        finally:
            for process in processes:
                process.join(GRACE_SECONDS)
                process.kill()


def _result(processes: Sequence[Any], ends: Sequence[Connection]) -> Any:
    result, open_ends = None, dict(zip(ends, range(len(ends)), strict=True))
    while open_ends:
        wait(list(open_ends))
        for end in list(open_ends):
            if not end.poll():
                continue
            rank = open_ends.pop(end)
            try:
                kind, value = end.recv()
            except EOFError:
                processes[rank].join()
                code = processes[rank].exitcode
                kind, value = "died", f"ended from outside or crashed (exit code {code})"
            if kind != "done":
                end_by = time.monotonic() + (GRACE_SECONDS if kind == "error" else 0.0)
                for process in processes:
                    process.join(max(0.0, end_by - time.monotonic()))
                    process.kill()
                raise UserError(value if kind == "error" else f"process {rank} of {len(processes)} {value}")
            if rank == 0:
                result = value
    return result


def _run(end: Connection, function: Callable[..., Any], arguments: dict[str, Any]) -> None:
    # As the command does; a process that is started anew knows nothing of it.
    warnings.filterwarnings("ignore", module=r"paddle\.")
    try:
        end.send(("done", function(**arguments)))
    except UserError as error:
        end.send(("error", str(error)))
    except BaseException:
        end.send(("failed", f"failed:\n{traceback.format_exc()}"))


def _place(rank: int, endpoints: Sequence[str], device: str) -> dict[str, str]:
    """What Paddle reads of a process's place among the others."""
    kind, _, index = device.partition(":")
    place = {
        "PADDLE_TRAINER_ID": str(rank),
        "PADDLE_TRAINERS_NUM": str(len(endpoints)),
        "PADDLE_TRAINER_ENDPOINTS": ",".join(endpoints),
        "PADDLE_CURRENT_ENDPOINT": endpoints[rank],
        "PADDLE_MASTER": endpoints[0],
    }
    if kind == "cpu":
        return {**place, "PADDLE_DISTRI_BACKEND": "gloo", "OMP_NUM_THREADS": str(max(1, cores() // len(endpoints)))}
    return {**place, f"FLAGS_selected_{kind}s": index}


def _free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _passed_on(processes: Sequence[Any]) -> Iterator[None]:
    """A terminal's Ctrl-C reaches all processes by itself; what is sent to this one alone is passed on."""

    def send(number: int, _: Any) -> None:
        for process in processes:
            if process.is_alive():
                process.terminate()

    try:
        before = {signal.SIGTERM: signal.signal(signal.SIGTERM, send), signal.SIGINT: signal.getsignal(signal.SIGINT)}
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
