"""A run that is killed and resumed until it is done, for tests of what kills leave behind.

`python -m tests.train.lives SPEC`, where SPEC is JSON: `output`, `model`, `overrides` of its recipe and `kills`, one
for each life: `{"after": seconds}`, or `{"at": point, "nth": n}` with one of POINTS. Later lives are not killed. Each
life is a fork of this process, which has imported everything but computed nothing. Prints, as JSON, how each ended.
`{"room": bytes, "from": n}` is a disk that has no more room for a file, from the nth file on.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from toolkit.errors import UserError
from toolkit.run import Run
from toolkit.train import start
from toolkit.weights import pickled
from toolkit.weights.load import read_checkpoint, read_weights


def die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def on_call(owner: Any, name: str, nth: int, *, after: bool = False) -> None:
    """Die at the nth call of `owner.name`, before it or after it."""
    original: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def counted(*arguments: Any, **keywords: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == nth and not after:
            die()
        result = original(*arguments, **keywords)
        if calls == nth:
            die()
        return result

    setattr(owner, name, counted)


def no_room(size: int, first: int) -> None:
    original, calls = pickled.write, 0

    def write(tree: Any, emit: Callable[[Any], Any]) -> None:
        nonlocal calls
        calls += 1
        if calls == first:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        original(tree, emit)

    pickled.write = write


POINTS: dict[str, Callable[[int], None]] = {
    # A file is some hundred pieces long: this is in the middle of one.
    "write": lambda nth: on_call(pickled, "_write_array", 100 * nth),
    "sync": lambda nth: on_call(os, "fsync", nth),
    "rename": lambda nth: on_call(Path, "replace", nth),
    "renamed": lambda nth: on_call(Path, "replace", nth, after=True),
    "folder": lambda nth: on_call(Path, "rename", nth),
    "foldered": lambda nth: on_call(Path, "rename", nth, after=True),
    "linked": lambda nth: on_call(Path, "symlink_to", nth, after=True),
}


def live(output: Path, model: str, overrides: dict[str, Any], kill: dict[str, Any]) -> None:
    """One life: start, or go on where there is something to go on with."""
    if "room" in kill:
        no_room(kill["room"], kill.get("from", 1))
    if "at" in kill:
        POINTS[kill["at"]](kill["nth"])
    if (output / "latest").exists():
        start.resume_training(output=output, device="cpu")
    else:
        start.start_training(model, overrides=overrides, device="cpu", output=output)


def main(spec: dict[str, Any]) -> list[str]:
    output, ends = Path(spec["output"]), []
    kills = [*spec["kills"], {}]
    while True:
        kill = kills[min(len(ends), len(kills) - 1)]
        child = os.fork()
        if child == 0:
            code = 1
            try:
                live(output, spec["model"], spec["overrides"], kill)
                code = 0
            except UserError as error:
                print(error, file=sys.stderr)
                code = 2
            except BaseException:
                traceback.print_exc()
            os._exit(code)
        if "after" in kill:
            time.sleep(kill["after"])
            os.kill(child, kill.get("signal", signal.SIGKILL))
        _, status = os.waitpid(child, 0)
        ends.append("killed" if os.WIFSIGNALED(status) else f"exit {os.WEXITSTATUS(status)}")
        if check(output) == "completed":  # It may be killed between that and its exit.
            ends[-1] = "exit 0"
        if ends[-1] in ("exit 0", "exit 1") or (not kill and ends[-1] != "exit 0"):
            return ends


def check(output: Path) -> str | None:
    """Load whatever is there; returns how the run has ended, if it has."""
    if not (output / "latest").exists():
        return None
    run = Run.find(None, output=output)
    run.recipe()
    if run.checkpoint.exists():
        read_checkpoint(run.checkpoint)
    if run.best_weights.exists():
        read_weights(run.best_weights)
    return run.ended


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
