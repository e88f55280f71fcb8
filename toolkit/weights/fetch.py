"""Official weights: downloaded once, kept in a cache, checked before each use."""

from __future__ import annotations

import hashlib
import http.client
import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from toolkit import __version__
from toolkit.errors import UserError
from toolkit.places import cache_folders, expand, is_writable, writable_cache
from toolkit.zoo import find_model

TIMEOUT = 30.0
"""Seconds without a byte after which a connection counts as dead."""
ATTEMPTS = 5
"""Connections in a row that may break before a download is given up."""
CHUNK = 1 << 18
IN_FOLDERS = ("best_model/best_model.pdparams", "best_model.pdparams", "model_final.pdparams")
"""Where in a folder the weights of its training lie."""

_ELSEWHERE = "SEG_TUNE_CACHE names another folder"

_Show = Callable[[int, int | None], None]
"""Takes the bytes that are here, and those of the whole file if known."""

# What a broken connection raises inside `_network`. (HTTPError, the server's refusal, is a URLError too.)
_BROKEN = (URLError, http.client.HTTPException)


def resolve_pretrained(value: str, model_name: str) -> Path | None:
    """The weights file that `--pretrained` means: `official` (downloaded if need be), `none` or a path.

    Raises UserError for a missing file or an unknown model, or if the download fails.
    """
    if value == "none":
        return None
    if value == "official":
        return fetch(find_model(model_name).url)
    path = weights_file(expand(value))
    if path is None:
        raise UserError(f"--pretrained {value}: no such file; give official, none or a .pdparams file")
    return path


def weights_file(path: Path) -> Path | None:
    """The weights at `path`: a file, also without its ending as PaddleDetection's configs have it, or the folder of a
    training of this package, of PaddleX or of PaddleDetection; None where there are none."""
    tries = [path, path.with_name(f"{path.name}.pdparams"), *(path / name for name in IN_FOLDERS)]
    return next((one for one in tries if one.is_file()), None)


def cached(url: str, *, cache_dir: Path | None = None) -> Path | None:
    """The file at `url` in `cache_dir`, by default in the cache; None if it is not there."""
    folders = [cache_dir] if cache_dir else cache_folders()
    return next((path for folder in folders if (path := folder / _name(url)).is_file()), None)


def fetch(url: str, *, cache_dir: Path | None = None, progress: bool = True) -> Path:
    """The file at `url`, from the cache or downloaded into it.

    A download that breaks off goes on where it stopped, now or at the next call. Beside the file lies its SHA-256
    (`sha256sum -c` reads it); a file that was changed since it came is downloaded anew. Two processes that want the
    same file download it once. `progress` shows a bar on a terminal.

    Servers named in `SEG_TUNE_MIRROR` (addresses of folders, apart by spaces) are asked first. Where `SEG_TUNE_OFFLINE`
    names a folder, the file is taken from there, held against the hash beside it if there is one, and no server is
    asked.

    Raises UserError, which says what else to do, if the file cannot be had.
    """
    if offline := os.environ.get("SEG_TUNE_OFFLINE"):
        return _offline(expand(offline) / _name(url), url)
    here = cached(url, cache_dir=cache_dir)
    if here and (_is_unchanged(here) or (not is_writable(here.parent) and _is_as_noted(here))):
        return here
    path = (cache_dir or _folder_to_write()) / _name(url)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _lock(path):
            if not _is_intact(path):
                mirrors = os.environ.get("SEG_TUNE_MIRROR", "").split()
                urls = [*(f"{mirror.rstrip('/')}/{path.name}" for mirror in mirrors), url]
                _download_from_any(urls, path, progress=progress)
    except _BROKEN as error:
        raise UserError(_advice(url, _reason(error))) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}; {_ELSEWHERE}") from None
    return path


def _folder_to_write() -> Path:
    folder, folders = writable_cache(), cache_folders()
    if folder is None:
        raise UserError(f"{', '.join(map(str, folders)) or 'cache'}: cannot be written; {_ELSEWHERE}")
    if folder != folders[0]:
        print(f"{folders[0]} cannot be written; weights are kept in {folder} ({_ELSEWHERE})", file=sys.stderr)
    return folder


def _offline(path: Path, url: str) -> Path:
    if not path.is_file():
        raise UserError(f"{path}: missing, and SEG_TUNE_OFFLINE forbids to download it; put {url} there")
    if not _is_as_noted(path):
        raise UserError(f"{path}: not what its .sha256 says; copy it again")
    return path


def _download_from_any(urls: Sequence[str], path: Path, *, progress: bool) -> None:
    url, *others = urls
    try:
        _download(url, path, progress=progress)
    except _BROKEN as error:
        if not others:
            raise
        print(f"{url}: {_reason(error)}; asking the next server", file=sys.stderr)
        _download_from_any(others, path, progress=progress)


def _download(url: str, path: Path, *, progress: bool) -> None:
    part, validator = _beside(path, ".part"), _beside(path, ".part.version")
    with _bar(path.name) if progress else nullcontext(_silent) as show:
        for attempt in range(1, ATTEMPTS + 1):
            before = part.stat().st_size if part.exists() else 0
            try:
                _receive(url, part, validator=validator, show=show)
                break
            except HTTPError:
                raise
            except _BROKEN:
                # Only a connection that brought something is worth another.
                if attempt == ATTEMPTS or not part.exists() or part.stat().st_size <= before:
                    raise
    _record(path, part)
    validator.unlink()
    part.replace(path)


def _receive(url: str, part: Path, *, validator: Path, show: _Show) -> None:
    """Write what is missing of `part`, which belongs to the version of the file that `validator` names."""
    version = validator.read_text(encoding="utf-8") if validator.exists() else ""
    have = part.stat().st_size if version and part.exists() else 0
    request = Request(url, headers={"User-Agent": f"seg-tune/{__version__}"})
    if have:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", version)
    try:
        with _network():
            response = urlopen(request, timeout=TIMEOUT)
    except HTTPError as error:
        if error.code == 416 and have:
            _start_over(url, part, validator=validator, show=show)
            return
        raise
    with response:
        headers = response.headers
        if headers.get_content_type() == "text/html":
            raise http.client.HTTPException("the server sent a web page instead of the file")
        if have and response.status == 206:
            continues = headers.get("Content-Range", "").startswith(f"bytes {have}-")
            if not continues or _version(headers) not in ("", version):
                _start_over(url, part, validator=validator, show=show)
                return
        else:
            have = 0
            part.unlink(missing_ok=True)
        validator.write_text(_version(headers) or version, encoding="utf-8")
        length = headers.get("Content-Length", "")
        total = have + int(length) if length.isdigit() else None
        with part.open("ab" if have else "wb") as file:
            while chunk := _read(response):
                file.write(chunk)
                have += len(chunk)
                show(have, total)
            file.flush()
            os.fsync(file.fileno())
    if total is not None and have < total:
        raise http.client.HTTPException(f"cut off after {have} of {total} bytes")


def _start_over(url: str, part: Path, *, validator: Path, show: _Show) -> None:
    """Get the whole file: what is here is not the beginning of what the server has."""
    part.unlink()
    validator.unlink()
    _receive(url, part, validator=validator, show=show)


def _read(response: http.client.HTTPResponse) -> bytes:
    with _network():
        return response.read(CHUNK)


@contextmanager
def _network() -> Iterator[None]:
    """Within this context trouble is the network's, and not the disk's, whose errors have the same type."""
    try:
        yield
    except URLError:
        raise
    except OSError as error:
        raise URLError(error) from error


def _version(headers: http.client.HTTPMessage) -> str:
    """What identifies the bytes of a file to a server; a weak ETag (W/"...") does not."""
    tag: str = headers.get("ETag", "")
    return tag if tag.startswith('"') else headers.get("Last-Modified", "")


def _record(path: Path, part: Path) -> None:
    """Note the hash of `part` as that of `path`.

    The note gets the time of the file, so that equal times mean: unchanged since.
    """
    note = _beside(path, ".sha256")
    note.write_text(f"{sha256_of(part)}  {path.name}\n", encoding="utf-8")
    _copy_time(part, note)


def recorded_hash(path: Path) -> str | None:
    """The SHA-256 that was noted when the file came; None where there is no note."""
    note = _beside(path, ".sha256")
    return (note.read_text(encoding="utf-8").split() or [""])[0] if note.is_file() else None


def _is_unchanged(path: Path) -> bool:
    note = _beside(path, ".sha256")
    return path.is_file() and note.is_file() and note.stat().st_mtime_ns == path.stat().st_mtime_ns


def _is_as_noted(path: Path) -> bool:
    """Whether the file has the hash noted beside it, or there is no note."""
    return recorded_hash(path) in (None, sha256_of(path))


def _is_intact(path: Path) -> bool:
    if not path.is_file():
        return False
    note = _beside(path, ".sha256")
    if not note.is_file():  # Put there by hand.
        _record(path, path)
        return True
    if _is_unchanged(path):
        return True
    if recorded_hash(path) == sha256_of(path):
        _copy_time(path, note)
        return True
    print(f"{path}: changed since it was downloaded; downloading it again", file=sys.stderr)
    return False


def _copy_time(source: Path, target: Path) -> None:
    moment = source.stat().st_mtime_ns
    os.utime(target, ns=(moment, moment))


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Held by one process at a time; the system gives it back if that process dies."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with _beside(path, ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"another process is downloading {path.name}; waiting for it", file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _bar(name: str) -> Iterator[_Show]:
    if not sys.stderr.isatty():
        print(f"downloading {name}", file=sys.stderr)
        yield _silent
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(name, total=None)
        yield lambda have, total: bar.update(task, completed=have, total=total)


def _name(url: str) -> str:
    return urlsplit(url).path.rpartition("/")[2]


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def _silent(have: int, total: int | None) -> None:
    """Shows nothing."""


def _reason(error: Exception) -> str:
    if isinstance(error, HTTPError):
        return f"HTTP {error.code} {error.reason}"
    cause = error.reason if isinstance(error, URLError) else error
    if isinstance(cause, TimeoutError):
        return f"no answer within {TIMEOUT:.0f} s"
    if isinstance(cause, socket.gaierror):
        return "no network, or the name of the server is unknown"
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return str(cause) or type(cause).__name__


def _advice(url: str, reason: str) -> str:
    return (
        f"cannot download {url} ({reason}); download it elsewhere and pass --pretrained /path/to/file.pdparams, "
        "or train from scratch with --pretrained none"
    )
