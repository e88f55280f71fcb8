"""The fastest engine that finds what the trained model finds; measured once for each machine and model."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from toolkit import cores
from toolkit.data.images import read_rgb
from toolkit.errors import UserError
from toolkit.pipeline.backends.engines import ENGINES, Backend, load_engine
from toolkit.pipeline.certificate import Agreement, as_tree, check, from_tree, read_agreements, run_each
from toolkit.pipeline.exported import Exported
from toolkit.pipeline.sample import read_sample
from toolkit.places import cache_folders, writable_cache

_ENGINES = "engines"
"""The folder of the cache."""
SLOWER = 1.5
"""Engines that took so much longer than the fastest when the model was exported are not measured again."""
PICTURES, ROUNDS = 2, 3
"""What is measured: the best of so many rounds over so many pictures, the engines in turn."""


def choose_engine(exported: Exported, *, device: str, lower_precision: bool, threads: int | None) -> str:
    """The name of the engine.

    Raises UserError if no engine can run the model on `device`, or none that can agrees with the trained model.
    """
    if device != "cpu":
        return "paddle"
    here = [
        name
        for name, engine in ENGINES.items()
        if engine.lacks(exported, device) is None and (lower_precision or engine.precision == "f32")
    ]
    if not here:
        wanted = "onnxruntime" if exported.onnx else "paddle"
        raise UserError(f"engine {wanted}: {ENGINES[wanted].lacks(exported, device)}")
    known = read_agreements(exported)
    if not known:
        # Not this package's export, of which nothing is known: oneDNN crashes on PaddleX's own.
        return here[0]
    # Of one machine; times of another one, or of first use here, do not compare with them.
    ms = {name: agreement.ms_per_picture for name, agreement in known.items()}
    record = _Record(exported, threads=threads)
    for name in here:
        # Numbers of lower precision come out differently from processor to processor.
        certain = name in known and (ENGINES[name].precision == "f32" or not known[name].holds)
        if not certain and (agreement := record.agreement(name)) is not None:
            known[name] = agreement
    sound = [name for name in here if name in known and known[name].holds]
    if not sound:
        differing = "; ".join(f"{name}: {known[name].describe()}" for name in here if name in known)
        raise UserError(
            f"{exported.folder}: no engine here agrees with the trained model ({differing or 'none was compared'}); "
            f"name one of {', '.join(here)} to run it all the same"
        )
    fastest = min((ms[name] for name in sound if name in ms), default=0.0)
    near = [name for name in sound if name not in ms or ms[name] <= SLOWER * fastest]
    return near[0] if len(near) == 1 else record.fastest(near)


def warn_of_difference(exported: Exported, backend: Backend) -> None:
    """Say so if `backend`, which was asked for by name, differs from the trained model by more than is allowed."""
    known = read_agreements(exported)
    agreement = known.get(backend.name)
    if known and agreement is None:
        agreement = _Record(exported, threads=None).agreement(backend.name, backend)
    if agreement is not None and not agreement.holds:
        print(
            f"engine {backend.name}: differs from the trained model by more than is allowed: {agreement.describe()}",
            file=sys.stderr,
        )


class _Record:
    """What was found out on this machine about one model, in a file in the cache."""

    def __init__(self, exported: Exported, *, threads: int | None) -> None:
        self._exported = exported
        self._threads = threads or cores()

    def agreement(self, name: str, backend: Backend | None = None) -> Agreement | None:
        """How the engine compares with the trained model on the sample; None where there is no sample."""
        known = self._found.agreements
        if name not in known:
            sample = read_sample(self._exported.folder)
            if sample is None:
                return None
            _tell(f"engine {name}: first used with this model here; comparing it with the trained model")
            backend = backend or load_engine(self._exported, name, threads=self._threads)
            known[name] = check(self._exported, sample, backend, precision=ENGINES[name].precision)
            self._write()
        return known[name]

    def fastest(self, names: Sequence[str]) -> str:
        """The fastest of the engines; without a sample to measure on, the first."""
        ms = self._found.ms
        if not set(names) <= set(ms):
            sample = read_sample(self._exported.folder)
            if sample is None:
                return names[0]
            _tell(f"measuring once which engine is fastest here: {', '.join(names)}")
            pictures = [read_rgb(picture.path) for picture in sample.split.pictures[:PICTURES]]
            prepared = [self._exported.preprocess(rgb) for rgb in pictures]
            backends = {name: load_engine(self._exported, name, threads=self._threads) for name in names}
            ms.update(dict.fromkeys(names, float("inf")))
            for _ in range(ROUNDS):
                for name, backend in backends.items():
                    _, took = run_each(lambda picture, b=backend: b([picture], threshold=0.5)[0], prepared)  # type: ignore[misc]
                    ms[name] = min(ms[name], round(took, 1))
            self._write()
        return min(names, key=lambda name: ms[name])

    @cached_property
    def _name(self) -> str:
        packages = sorted({engine.package for engine in ENGINES.values()})
        told = [_processor(), str(self._threads), *map(_version, packages)]
        # Reading a graph takes longer than loading it; one that was replaced is known by its time.
        for file in sorted(self._exported.folder.glob("inference.*")):
            about = file.stat()
            told.append(f"{file.name} {about.st_size} {about.st_mtime_ns}")
        told.append((self._exported.folder / "certificate.json").read_text(encoding="utf-8"))
        return hashlib.sha256("\n".join(told).encode()).hexdigest()[:32] + ".json"

    @cached_property
    def _found(self) -> _Found:
        for folder in cache_folders():
            # A file that cannot be read is made again.
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
                tree = json.loads((folder / _ENGINES / self._name).read_text(encoding="utf-8"))
                return _Found(from_tree(tree["agreements"]), {str(name): float(ms) for name, ms in tree["ms"].items()})
        return _Found({}, {})

    def _write(self) -> None:
        # Where nothing can be written, it is found out anew each time.
        folder = writable_cache()
        if folder is None:
            return
        with contextlib.suppress(OSError):
            path = folder / _ENGINES / self._name
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_suffix(f".{os.getpid()}.part")
            tree = {"agreements": as_tree(self._found.agreements), "ms": self._found.ms}
            part.write_text(json.dumps(tree, indent=2), encoding="utf-8")
            part.replace(path)


@dataclass(frozen=True)
class _Found:
    agreements: dict[str, Agreement]
    """Of engines that the export's certificate does not know."""
    ms: dict[str, float]
    """For a picture."""


def _version(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:  # Installed under another name, as are builds for GPUs.
        return package


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line
    return platform.processor() or platform.machine()


def _tell(line: str) -> None:
    print(line, file=sys.stderr)
