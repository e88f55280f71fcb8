"""Worker processes of the service, watched over."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import tempfile
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import multiprocess

from toolkit.errors import UserError
from toolkit.pipeline.config import load_pipeline_config
from toolkit.pipeline.exported import read_exported
from toolkit.pipeline.inputs import Picture
from toolkit.pipeline.predictor import Pipeline
from toolkit.serve.app import ENDPOINT, Settings, create_app
from toolkit.serve.selftest import self_test

_SETTINGS, _FAILURE = "SEG_TUNE_SERVE", "SEG_TUNE_SERVE_FAILURE"
"""Of the environment, through which a worker process is told its settings, and the file for what makes it fail."""

LAST_WORDS = 0.2
"""Seconds in which a client that is connected at the end can still send its request."""


def serve(settings: Settings, *, host: str, port: int, workers: int) -> None:
    """Serve until SIGTERM or Ctrl-C; then what was accepted is still answered. A worker that dies is replaced.

    Raises UserError for a pipeline that cannot be read or fails its self-test, and for an address that cannot be had.
    """
    config = load_pipeline_config(settings.pipeline)
    name = read_exported(config.model_dir, model_name=config.model_name).model_name
    if settings.visualize is None:
        settings = settings.model_copy(update={"visualize": config.visualize})
    listener = _socket(host, port)
    with tempfile.TemporaryDirectory() as folder:
        failure = Path(folder) / "failure"
        os.environ |= {
            "PROMETHEUS_MULTIPROC_DIR": folder,
            _FAILURE: str(failure),
            _SETTINGS: settings.model_dump_json(),
        }
        server = uvicorn.Config(
            "toolkit.serve.run:app_of_worker",
            factory=True,
            host=host,
            port=port,
            workers=workers,
            http="h11",  # With httptools, requests that offer HTTP/2, as Java's do, lose their bodies.
            access_log=False,
            log_config=_LOG,
            timeout_worker_healthcheck=30,
        )
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # It is said below.
        shown = f"http://{host}:{port}"
        print(f"{name} at {shown}{ENDPOINT}; page {shown}/, description {shown}/docs; Ctrl-C ends it", flush=True)
        _Workers(server, sockets=[listener]).run()
        if failure.is_file():
            raise UserError(failure.read_text(encoding="utf-8"))


class _Workers(multiprocess.Multiprocess):
    def terminate_all(self) -> None:
        # Or the system would go on taking connections, which nobody answers.
        for listener in self.sockets:
            listener.close()
        super().terminate_all()


class _Server(uvicorn.Server):
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, which lets go of whoever is connected and has not been heard yet."""
        connected = []
        for listener in sockets or []:
            with suppress(BlockingIOError):
                while True:
                    connected.append(listener.accept()[0])
        for server in self.servers:
            server.close()
        loop = asyncio.get_running_loop()
        for connection in connected:
            await loop.connect_accepted_socket(self._protocol, connection)
        await asyncio.sleep(LAST_WORDS)
        await super().shutdown(sockets)

    def _protocol(self) -> asyncio.Protocol:
        protocol: type[Any] = self.config.http_protocol_class
        return protocol(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)


class _Worker(multiprocess.Process):
    @property
    def server(self) -> uvicorn.Server:
        if self._server is None:
            self._server = _Server(config=self.config)
        return self._server


multiprocess.Process = _Worker  # type: ignore[misc]  # Which the supervisor makes; it has no way to be told.


def app_of_worker() -> FastAPI:
    """The app of a worker process, as its environment says; what is wrong ends all of the service."""
    settings = Settings.model_validate_json(os.environ[_SETTINGS])
    try:
        pipeline = _load(settings)
        return create_app(pipeline, settings, seconds=_seconds(pipeline))
    except Exception as error:
        if not isinstance(error, UserError):
            traceback.print_exc()
        Path(os.environ[_FAILURE]).write_text(str(error) or repr(error), encoding="utf-8")
        sys.exit(STARTUP_FAILURE)


def check(settings: Settings) -> None:
    """Load the pipeline, replay its sample and say how it went.

    Raises UserError.
    """
    _load(settings)


def _load(settings: Settings) -> Pipeline:
    pipeline = settings.load()
    print(self_test(pipeline), flush=True)
    return pipeline


def _seconds(pipeline: Pipeline) -> float:
    """What a picture takes when several are worked on: how many can wait is known before the first request."""
    empty = Picture(np.zeros((480, 640, 3), np.uint8), None)
    for _ in range(2):  # The first one warms up.
        start = time.monotonic()
        pipeline.find([empty], network=pipeline.sessions)
    return (time.monotonic() - start) / pipeline.sessions.count


def _socket(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        raise UserError(f"--host {host} --port {port}: {getattr(error, 'strerror', None) or error}") from None
    listener.set_inheritable(True)
    return listener


_LOG = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {"format": "%(asctime)s %(levelname)s %(process)d %(message)s"},
    },
    "handlers": {"stderr": {"class": "toolkit.serve.log.BackgroundHandler", "formatter": "line"}},
    "loggers": {
        "uvicorn": {"handlers": ["stderr"], "level": "WARNING", "propagate": False},
        "seg-tune.serve": {"handlers": ["stderr"], "level": "INFO", "propagate": False},
    },
}
