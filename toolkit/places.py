"""Folders that commands write to, and what happens where they cannot: containers often have a read-only root, no home
or a user id without a name."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from toolkit.errors import UserError

_HOME = "USERPROFILE" if os.name == "nt" else "HOME"
IN_MEMORY = Path("/dev/shm")
"""A folder that Linux keeps in memory."""
_REFUSALS = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT}


def expand(path: str | os.PathLike[str]) -> Path:
    """`path` with `~` replaced, or as it is where the user has no home folder (`Path.expanduser` raises there)."""
    return Path(os.path.expanduser(path))  # noqa: PTH111


def is_writable(folder: Path) -> bool:
    """Whether files can be written into `folder`; if it does not exist, whether it can be made. Writes nothing."""
    folder = folder.absolute()
    existing = next(path for path in (folder, *folder.parents) if path.exists() or path == path.parent)
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)


def require_writable(folder: Path, *, advice: str = "choose another folder with --output") -> None:
    """Raises UserError if `folder` cannot be written, so that a long command fails before its work. Writes nothing."""
    if not is_writable(folder):
        raise UserError(f"{folder}: cannot be written; {advice}")


@contextmanager
def writing(place: Path, *, advice: str = "choose another folder with --output") -> Iterator[None]:
    """Raises UserError, naming `place`, for an OSError within the block."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{place}: cannot be written: {error.strerror or error}; {advice}") from None


def refusal(error: OSError) -> str | None:
    """One line for an error that says that the system does not let this user write (or read) here, else None."""
    if isinstance(error, FileNotFoundError) and _temporary() is None:
        return "no folder for temporary files can be written; TMPDIR names one"
    if error.errno not in _REFUSALS:
        return None
    return f"{error.filename or 'output'}: {error.strerror}; change its permissions, or name another place"


def cache_folders() -> list[Path]:
    """Where cached files are looked for: `SEG_TUNE_CACHE` alone, or `~/.cache/seg-tune/weights` and then a folder of
    the user's own among temporary files. They need not exist."""
    if chosen := os.environ.get("SEG_TUNE_CACHE"):
        return [expand(chosen)]
    own = _own_temporary()
    home = expand("~")
    folders = [home / ".cache" / "seg-tune" / "weights"] if home.is_absolute() else []
    return [*folders, own] if own else folders


def writable_cache() -> Path | None:
    """The first of `cache_folders` that can be written, made if need be; None if there is none."""
    for folder in cache_folders():
        if is_writable(folder):
            try:
                folder.mkdir(parents=True, exist_ok=True, mode=0o700 if folder == _own_temporary() else 0o777)
            except OSError:
                continue
            # Asked again: somebody else may have been faster to make the folder among temporary files.
            if folder in cache_folders():
                return folder
    return None


def find_temporary_folder() -> None:
    """Let temporary files lie in memory (`/dev/shm`) where Python finds no folder for them but the working folder, here
    and in children."""
    if not IN_MEMORY.is_dir() or not is_writable(IN_MEMORY):
        return
    found = _temporary()
    named = filter(None, map(os.environ.get, ("TMPDIR", "TEMP", "TMP")))
    usual = [os.path.abspath(folder) for folder in (*named, "/tmp", "/var/tmp", "/usr/tmp")]  # noqa: PTH100
    if found is None or str(found) not in usual:
        tempfile.tempdir = os.environ["TMPDIR"] = str(IN_MEMORY)


@contextmanager
def home_for_libraries(uses: str) -> Iterator[None]:
    """A temporary home folder within the block, where there is none or the user cannot write to its folder `uses`.

    For libraries that write there unasked and fail if they cannot. Not safe with threads that look at `HOME`.
    """
    home = expand("~")
    if home.is_absolute() and is_writable(home / uses):
        yield
        return
    before = os.environ.get(_HOME)
    with tempfile.TemporaryDirectory() as folder:
        os.environ[_HOME] = folder
        try:
            yield
        finally:
            os.environ.pop(_HOME)
            if before is not None:
                os.environ[_HOME] = before


def _temporary() -> Path | None:
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:
        return None


def _own_temporary() -> Path | None:
    """A folder among temporary files, unless somebody else has made it or can write to it."""
    temporary = _temporary()
    if temporary is None:
        return None
    user = os.getuid() if hasattr(os, "getuid") else None
    folder = temporary / ("seg-tune" if user is None else f"seg-tune-{user}")
    try:
        about = folder.lstat()
    except FileNotFoundError:
        return folder
    except OSError:
        return None
    private = user is None or (about.st_uid == user and not about.st_mode & 0o022)
    return folder if stat.S_ISDIR(about.st_mode) and private else None
