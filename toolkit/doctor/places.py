"""Folders that are written to, and what the environment says of the network."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from toolkit.doctor.report import Check, Found
from toolkit.places import IN_MEMORY, cache_folders, expand, is_writable, writable_cache

TEMPORARY_FIX = ("export TMPDIR=/a/writable/folder",)
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
_SETTINGS = ("SEG_TUNE_CACHE", "SEG_TUNE_OFFLINE", "SEG_TUNE_MIRROR", "SEG_TUNE_TOKEN")
_SECRET = {"SEG_TUNE_TOKEN"}


def look_at_places() -> Found:
    """Home, working folder, temporary files and caches."""
    checks: list[Check] = []
    facts: dict[str, Any] = {}
    home = expand("~")
    known = home.is_absolute()
    facts["home"] = _facts(home) if known else {"path": None, "writable": False}
    if not known:
        checks.append(Check("home", "warning", "this user has no home folder; libraries get a temporary one"))
    elif not facts["home"]["writable"]:
        checks.append(Check("home", "warning", f"{home}: cannot be written; libraries get a temporary folder instead"))
    else:
        checks.append(Check("home", "ok", str(home)))
    here = Path.cwd()
    facts["working folder"] = _facts(here)
    fix = ("name a folder with --output (train, eval, export, quickstart) or --save-path (predict)",)
    checks.append(
        Check("working folder", "ok", str(here))
        if facts["working folder"]["writable"]
        else Check("working folder", "warning", f"{here}: cannot be written", fix)
    )
    check, facts["temporary files"] = _temporary()
    checks.append(check)
    check, facts["cache"] = _cache()
    checks.append(check)
    facts["caches of libraries"] = {
        "paddle": _facts(expand("~/.cache/paddle")),
        "visualdl": _facts(expand("~/.visualdl")),
        "paddlex": _facts(Path(os.environ.get("PADDLE_PDX_CACHE_HOME") or expand("~/.paddlex"))),
    }
    return checks, facts


def _temporary() -> tuple[Check, dict[str, Any]]:
    name = "temporary files"
    try:
        folder = Path(tempfile.gettempdir())
    except FileNotFoundError:
        text = "no folder for temporary files can be written"
        return Check(name, "error", text, TEMPORARY_FIX), {"path": None, "writable": False}
    facts = _facts(folder)
    text = f"{folder}: {_free(facts)}"
    if folder == IN_MEMORY:
        return Check(name, "warning", f"{text}; they take memory, since no other folder can be written"), facts
    return Check(name, "ok", text), facts


def _cache() -> tuple[Check, dict[str, Any]]:
    """Of weights and of measured engines. Making the folder shows whether it can be made."""
    folders, used = cache_folders(), writable_cache()
    facts = {"looked_for_in": [_facts(folder) for folder in folders], "written_to": str(used) if used else None}
    fix = ("export SEG_TUNE_CACHE=/a/writable/folder",)
    if used is None:
        text = f"{folders[0] if folders else 'cache'}: cannot be written; engines are measured anew each time"
        return Check("cache", "warning", text, fix), facts
    if used != folders[0] or not expand("~").is_absolute():
        text = (
            f"{folders[0]}: cannot be written; {used} is used" if used != folders[0] else f"{used}, for lack of a home"
        )
        return Check("cache", "warning", f"{text}, and may be gone after a restart", fix), facts
    return Check("cache", "ok", f"{used}: {_free(_facts(used))}"), facts


def _facts(folder: Path) -> dict[str, Any]:
    try:
        free: int | None = shutil.disk_usage(folder).free
    except OSError:
        free = None
    return {"path": str(folder), "exists": folder.exists(), "writable": is_writable(folder), "free_bytes": free}


def _free(facts: dict[str, Any]) -> str:
    free = facts["free_bytes"]
    return "free space unknown" if free is None else f"{free / 2**30:.1f} GB free"


def look_at_network() -> Found:
    """Proxies and seg-tune's own settings, without passwords."""
    proxies = {
        name: without_password(value)
        for key in _PROXIES
        for name in (key, key.upper())
        if (value := os.environ.get(name))
    }
    settings = {
        name: "(set)" if name in _SECRET else " ".join(map(without_password, value.split()))
        for name in _SETTINGS
        if (value := os.environ.get(name))
    }
    checks = [
        Check("proxies", "ok", _listed(proxies)),
        Check("settings", "ok", _listed(settings)),
    ]
    return checks, {"proxies": proxies, "settings": settings}


def _listed(values: dict[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items()) or "none"


def without_password(url: str) -> str:
    """The address with `***` for the user and the password in it."""
    # A password may hold :, / and @ unescaped: what is before the last @ is not shown.
    return re.sub(r"^([a-zA-Z][a-zA-Z0-9+.-]*://)?.*@", r"\1***@", url)
