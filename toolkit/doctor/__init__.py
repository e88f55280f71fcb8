"""`seg-tune doctor`: what this installation and machine have, and what is wrong with them.

Each look gathers facts and draws checks from them; none prints. All of it imports neither Paddle nor other engines:
those are probed in processes of their own, so that a broken one is reported.
"""

from __future__ import annotations

from collections.abc import Callable

from toolkit import __version__
from toolkit.doctor.engines import look_at_engines
from toolkit.doctor.machine import look_at_cores, look_at_memory, look_at_processor, look_at_shared_memory
from toolkit.doctor.packages import look_at_owners, look_at_python, look_at_requirements
from toolkit.doctor.places import look_at_network, look_at_places
from toolkit.doctor.report import SCHEMA, Check, Found, Report, Status, guarded

__all__ = ["LOOKS", "SCHEMA", "Check", "Report", "Status", "examine"]

LOOKS: dict[str, Callable[[], Found]] = {
    "python": look_at_python,
    "distributions": look_at_owners,
    "engines": look_at_engines,
    "requirements": look_at_requirements,
    "processor": look_at_processor,
    "cores": look_at_cores,
    "memory": look_at_memory,
    "shared memory": look_at_shared_memory,
    "places": look_at_places,
    "network": look_at_network,
}
"""In the order of the report; the names are the keys of its facts."""


def examine() -> Report:
    """Look at everything; takes some seconds. Writes nothing but the folder of the cache. Does not raise."""
    found = {name: guarded(name, look) for name, look in LOOKS.items()}
    checks = tuple(check for several, _ in found.values() for check in several)
    return Report(__version__, checks, {name: facts for name, (_, facts) in found.items()})
