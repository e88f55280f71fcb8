"""Official weights that are here: listed, fetched ahead, held against the hashes noted when they came."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from toolkit.errors import UserError
from toolkit.places import cache_folders
from toolkit.weights.fetch import cached, fetch, recorded_hash, sha256_of
from toolkit.zoo import MODELS, find_model

ENDINGS = (".pdparams", ".safetensors")


def list_weights() -> Table:
    """A row for each model: whether its official weights are in the cache, since when known by which hash."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("model", "MB", "in the cache", "SHA-256"):
        table.add_column(heading, justify="right" if heading == "MB" else "left", no_wrap=True)
    for name, model in MODELS.items():
        path = cached(model.url)
        size = path.stat().st_size / 1e6 if path else model.size_mb
        known = recorded_hash(path) if path else None
        table.add_row(name, f"{size:.1f}", "yes" if path else "-", (known or "-")[:16])
    return table


def fetch_weights(names: Sequence[str], *, to: Path | None = None) -> list[Path]:
    """Download the official weights of the models `names` (`all`: of all) into the cache, or into the folder `to`.

    Raises UserError for an unknown model, before anything is downloaded, and for what cannot be had.
    """
    models = list(MODELS.values()) if list(names) == ["all"] else [find_model(name) for name in names]
    return [fetch(model.url, cache_dir=to) for model in models]


def verify_weights(places: Sequence[Path] = ()) -> dict[Path, str]:
    """What has become of weights files, of those in folders, or by default of those in the cache.

    By file: `unchanged`, `changed`, `missing` (its hash alone is there) or `no hash noted`.

    Raises UserError for a place that does not exist.
    """
    found: dict[Path, str] = {}
    for place in places or cache_folders():
        if place.is_dir():
            noted = [path.with_suffix("") for path in place.glob("*.sha256")]
            files = sorted({*noted, *(path for path in place.iterdir() if path.suffix in ENDINGS)})
        elif place.is_file():
            files = [place]
        elif places:
            raise UserError(f"{place}: no such file or folder")
        else:
            files = []
        found.update({file: _verdict(file) for file in files})
    return found


def _verdict(file: Path) -> str:
    if not file.is_file():
        return "missing"
    known = recorded_hash(file)
    if known is None:
        return "no hash noted"
    return "unchanged" if known == sha256_of(file) else "changed"
