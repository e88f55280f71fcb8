"""A model in one archive: the exported folder (card and certificate in it), a pipeline config, licences and hashes.

It is a plain tar file with one folder in it, the same bytes each time it is made:

    <model>/SHA256SUMS      of everything else, as `sha256sum -c` reads it
    <model>/bundle.json     format, model, version of this package
    <model>/pipeline.yaml   a pipeline config that names the folder beside it
    <model>/inference/      the exported model
    <model>/licences/       texts
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from toolkit import __version__
from toolkit.bundled import licence
from toolkit.data.folder import new_folder
from toolkit.errors import UserError
from toolkit.pipeline.config import NAME, dump_pipeline_config, load_pipeline_config
from toolkit.pipeline.exported import read_exported
from toolkit.recipe import dump_yaml
from toolkit.weights.fetch import sha256_of

FORMAT = 1
SUMS, ABOUT, CONFIG, MODEL, LICENCES = "SHA256SUMS", "bundle.json", "pipeline.yaml", "inference", "licences"
CHUNK = 1 << 20
EXPECTED = ("certificate.json", "README.md", "inference.onnx")
"""What an export of this package has, and one of another tool may lack."""


def write_bundle(
    source: str | os.PathLike[str] | None = None, out: Path | None = None, *, licences: Sequence[Path] = ()
) -> tuple[Path, list[str]]:
    """Pack a model into `out`, by default `<model>.tar` in the working directory.

    Args:
        source: a run, the folder of an exported model or a pipeline config; by default the newest run's exported model.
        licences: more texts, as that of the data, to go beside the licence of this package.

    Returns the file and what the model lacks of `EXPECTED`. Raises UserError if there is no such model, or if the file
    exists or cannot be written.
    """
    if source is not None and (Path(source) / "recipe.yaml").is_file():
        source = Path(source) / MODEL
    config = load_pipeline_config(source)
    model = read_exported(config.model_dir, model_name=config.model_name)
    tree = _tree(source) or yaml.safe_load(
        dump_pipeline_config(model_name=model.model_name, model_dir=Path(MODEL), threshold=model.threshold)
    )
    about = {"format": FORMAT, "model": model.model_name, "version": __version__}
    files: dict[str, Path | bytes] = {
        ABOUT: json.dumps(about, indent=2).encode(),
        CONFIG: dump_yaml(_pointing(tree, MODEL)).encode(),
        f"{LICENCES}/seg-tune.txt": licence(),
    }
    for path in sorted(model.folder.rglob("*")):
        if path.is_file():
            files[f"{MODEL}/{path.relative_to(model.folder).as_posix()}"] = path
    for path in licences:
        if not path.is_file():
            raise UserError(f"--licence {path}: no such file")
        files[f"{LICENCES}/{path.name}"] = path
    out = out or Path(f"{model.model_name}.tar")
    if out.exists():
        raise UserError(f"{out}: exists already; remove it, or choose another --output")
    _pack(files, out, top=model.model_name)
    return out, [name for name in EXPECTED if not (model.folder / name).is_file()]


def install_bundle(file: Path, out: Path | None = None) -> Path:
    """Unpack a bundle into the new folder `out`, by default one with the model's name in the working directory.

    Every byte is held against the bundle's hashes first. Returns the pipeline config, written for where the model now
    lies.

    Raises UserError, with nothing written, for what is no bundle, is damaged, or holds what does not belong there.
    """
    try:
        with tarfile.open(file, "r:") as archive:
            members = dict(_members(archive, file))
            if ABOUT not in members or SUMS not in members:
                raise UserError(f"{file}: not a bundle; `seg-tune weights bundle` makes one")
            about = _about(_content(archive, members[ABOUT]), file)
            out = out or Path(about["model"])
            with new_folder(out) as folder:
                sums = {name: _unpack(archive, member, folder / name) for name, member in members.items()}
                del sums[SUMS]
                _compare(sums, (folder / SUMS).read_bytes(), file)
                tree = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
                pointing = dump_yaml(_pointing(tree, str(out.resolve() / MODEL)))
                (folder / f"{NAME}.yaml").write_text(pointing, encoding="utf-8")
                read_exported(folder / MODEL, model_name=about["model"])
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror or error}") from None
    except (tarfile.TarError, EOFError):
        raise UserError(f"{file}: not a whole tar file; copy it again") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file}: not a bundle that can be read ({error!r:.80}); make it again") from None
    return out / f"{NAME}.yaml"


def _tree(source: str | os.PathLike[str] | None) -> dict[str, Any] | None:
    """The contents of the pipeline config, where `source` is one."""
    path = Path(source) if source is not None else None
    if path is None or not path.is_file():
        return None
    tree: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return tree


def _pointing(tree: Mapping[str, Any], model_dir: str) -> dict[str, Any]:
    """The pipeline config, of either generation, with another folder of the model."""
    if "Pipeline" in tree:
        return {**tree, "Pipeline": {**tree["Pipeline"], "model": model_dir}}
    module = {**tree["SubModules"]["InstanceSegmentation"], "model_dir": model_dir}
    return {**tree, "SubModules": {**tree["SubModules"], "InstanceSegmentation": module}}


def _pack(files: Mapping[str, Path | bytes], out: Path, *, top: str) -> None:
    sums = "".join(f"{_hash(content)}  {name}\n" for name, content in sorted(files.items()))
    part = out.with_name(f".{out.name}.part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(part, "w:", format=tarfile.PAX_FORMAT) as archive:
            for name, content in [(SUMS, sums.encode()), *sorted(files.items())]:
                with content.open("rb") if isinstance(content, Path) else io.BytesIO(content) as stream:
                    # Neither times nor owners, so that the same model makes the same file.
                    member = tarfile.TarInfo(f"{top}/{name}")
                    member.size = content.stat().st_size if isinstance(content, Path) else len(content)
                    member.mode = 0o644
                    archive.addfile(member, stream)
        part.replace(out)
    except OSError as error:
        raise UserError(f"{out}: cannot be written: {error.strerror or error}") from None
    finally:
        part.unlink(missing_ok=True)


def _hash(content: Path | bytes) -> str:
    return sha256_of(content) if isinstance(content, Path) else hashlib.sha256(content).hexdigest()


def _members(archive: tarfile.TarFile, file: Path) -> Iterator[tuple[str, tarfile.TarInfo]]:
    """The files of the archive by their place in its one folder; none of them leads out of it."""
    seen: set[str] = set()
    for member in archive:
        path = PurePosixPath(member.name)
        inside = not path.is_absolute() and len(path.parts) > 1 and ".." not in path.parts
        name = "/".join(path.parts[1:])
        if member.isdir():
            continue
        # A sparse file may be larger than the archive.
        plain = member.isreg() and not member.issparse()
        if not (inside and plain) or set(member.name) & set("\\:\0") or name.casefold() in seen:
            raise UserError(f"{file}: holds {member.name!r:.100}, which no bundle has; nothing was unpacked")
        seen.add(name.casefold())
        yield name, member


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = archive.extractfile(member)
    assert stream is not None
    return stream.read()


def _about(content: bytes, file: Path) -> dict[str, Any]:
    tree: dict[str, Any] = json.loads(content)
    if tree["format"] != FORMAT:
        raise UserError(f"{file}: a bundle of format {tree['format']}; this version reads format {FORMAT}")
    if not isinstance(tree["model"], str) or PurePosixPath(tree["model"]).name != tree["model"]:
        raise ValueError(f"model {tree['model']}")
    return tree


def _unpack(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> str:
    """Write the file and return its hash."""
    stream, digest = archive.extractfile(member), hashlib.sha256()
    assert stream is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as target:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
            target.write(chunk)
    return digest.hexdigest()


def _compare(found: Mapping[str, str], sums: bytes, file: Path) -> None:
    lines = (line.partition("  ") for line in sums.decode().splitlines())
    said = {name: digest for digest, _, name in lines}
    for name in sorted({*found, *said}):
        if found.get(name) != said.get(name):
            what = "missing" if name not in found else "not what its hash says" if name in said else "without a hash"
            raise UserError(f"{file}: {name}: {what}; the bundle was changed or damaged, copy it again")
