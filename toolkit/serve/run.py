"""Worker processes of the service, watched over."""

from __future__ import annotations

import os
import socket
import tempfile

import uvicorn
from uvicorn.supervisors import Multiprocess

from toolkit.errors import UserError
from toolkit.serve.app import ENDPOINT, ENVIRONMENT, Settings
from toolkit.serve.selftest import self_test


def serve(settings: Settings, *, host: str, port: int, workers: int) -> None:
    """Serve until SIGTERM or Ctrl-C; then what was accepted is still answered. A worker that dies is replaced.

    Raises UserError for a pipeline that cannot be read or fails its self-test, and for an address that cannot be had.
    """
    # A worker that cannot load or does not agree would say so in a traceback.
    name = check(settings)
    listener = _socket(host, port)
    with tempfile.TemporaryDirectory() as figures:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = figures
        os.environ[ENVIRONMENT] = settings.model_dump_json()
        server = uvicorn.Config(
            "toolkit.serve.app:from_environment",
            factory=True,
            host=host,
            port=port,
            workers=workers,
            access_log=False,
            log_config=_LOG,
            timeout_worker_healthcheck=30,
        )
        shown = f"http://{host}:{port}"
        print(f"{name} at {shown}{ENDPOINT}; page {shown}/, description {shown}/docs; Ctrl-C ends it")
        Multiprocess(server, sockets=[listener]).run()


def check(settings: Settings) -> str:
    """Load the pipeline and replay its sample; returns the model's name.

    Raises UserError.
    """
    pipeline = settings.load()
    print(self_test(pipeline), flush=True)
    return pipeline.model.model_name


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
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "loggers": {
        "uvicorn": {"handlers": ["stderr"], "level": "WARNING", "propagate": False},
        "seg-tune.serve": {"handlers": ["stderr"], "level": "INFO", "propagate": False},
    },
}
