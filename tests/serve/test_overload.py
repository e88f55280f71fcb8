"""More clients than can be served: each is served or told so. Longer, and timed, in tests/e2e/test_serve_load.py."""

from __future__ import annotations

import asyncio
import json

from tests.e2e.load import clients
from tests.serve.conftest import Fixed, encoded, listening, text_of
from toolkit.serve.app import Settings
from toolkit.serve.limits import Limits


def test_in_overload_requests_are_served_or_refused() -> None:
    body = json.dumps({"image": text_of(encoded()), "visualize": False}).encode()
    with listening(Fixed(seconds=0.02, at_once=2), Settings(limits=Limits(seconds=0.1))) as port:
        outcomes = asyncio.run(clients(port, body, count=24, seconds=2.0, per_second=200))
    statuses = [outcome.status for outcome in outcomes]
    assert set(statuses) == {200, 503}
    assert statuses.count(200) > 10
