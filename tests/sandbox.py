"""Processes that may write to one folder only, as in containers; for root on Linux."""

from __future__ import annotations

import functools
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

NOBODY = (
    # Without an entry in passwd, in root's group, as OpenShift has it. May read what root can: Python may lie in /root.
    *("setpriv", "--reuid=123456", "--regid=0", "--clear-groups", "--no-new-privs"),
    *("--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"),
)

_READ_ONLY = """
mount --make-rprivate /
mount --bind "$0" "$0"
sort -rk2 /proc/self/mounts | while read -r _ place _ options _; do
    case $place in /proc*|/sys*|/dev|/dev/*|"$0") continue;; esac
    case $options in rw*) mount -o remount,bind,ro "$place" || exit 1;; esac
done || exit 1
exec "$@"
"""


def read_only_but(folder: Path) -> tuple[str, ...]:
    """What to put before a command so that it can write to `folder` and to memory (/dev/shm), and nowhere else."""
    return ("unshare", "--mount", "sh", "-c", _READ_ONLY, str(folder))


def environment(**variables: str) -> dict[str, str]:
    """This process's without a home and without what tests set."""
    hidden = ("HOME", "MKL_DEBUG_CPU_TYPE", "SEG_TUNE_CACHE", "TMPDIR", "XDG_CACHE_HOME")
    return {**{key: value for key, value in os.environ.items() if key not in hidden}, **variables}


@functools.cache
def missing(*command: str) -> str | None:
    """Why such a command cannot be run here, or None."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "needs root"
    try:
        done = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)
    except OSError as error:
        return f"{command[0]}: {error.strerror}"
    return None if done.returncode == 0 else f"{command[0]} is not permitted: {done.stderr.strip()}"


def run(
    within: Sequence[str], arguments: Sequence[str], *, cwd: Path, variables: dict[str, str], code: int = 0
) -> subprocess.CompletedProcess[str]:
    """Run a command and insist on its exit code and on no traceback."""
    done = subprocess.run(
        [*within, *arguments], cwd=cwd, env=variables, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done
