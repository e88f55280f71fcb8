"""Pipeline configs: the two generations that PaddleX 3.x reads, as a file, a name or a dict.

The current one has `SubModules`, the older one a `Pipeline` section:

    pipeline_name: instance_segmentation
    SubModules:
      InstanceSegmentation: {module_name: instance_segmentation, model_name: Mask-RT-DETR-S, model_dir: /models/s,
                             batch_size: 1, threshold: 0.5}

    Global: {pipeline_name: instance_segmentation}
    Pipeline: {model: /models/s, device: cpu, batch_size: 1}
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError

from toolkit.errors import UserError
from toolkit.places import expand
from toolkit.recipe import Tiling, dump_yaml, parse_tiling
from toolkit.zoo import MODELS

NAME = "instance_segmentation"
DEFAULT = "Mask-RT-DETR-S"
"""The model of the pipeline where nothing names one, as in PaddleX."""


@dataclass(frozen=True, kw_only=True)
class PipelineConfig:
    """What a pipeline needs to know, whichever way it was said."""

    model_dir: Path
    """Folder with `inference.yml`."""
    model_name: str | None = None
    """Checked against the name in the folder; None takes that one."""
    batch_size: int = 1
    threshold: float | Mapping[str, float] | None = None
    """Least score, of all classes or by name of class; None, and classes not named, leave it to the exported model."""
    device: str | None = None
    use_hpip: bool = False
    hpi_config: HpiConfig | None = None
    tiling: Tiling | Literal[False] | None = None
    """Tiles of large pictures; False (`off`): none; None leaves it to the exported model."""
    visualize: bool = True
    """Whether a service sends the drawn picture where a request does not say."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())


def _threshold(value: Any) -> float | dict[str, float] | None:
    if value is None:
        return None
    given = value if isinstance(value, Mapping) else {"": value}
    if any(isinstance(one, bool) or not isinstance(one, (int, float)) or not 0 <= one <= 1 for one in given.values()):
        raise ValueError("must be a number from 0 to 1, or such numbers by name of class")
    return {str(name): float(one) for name, one in value.items()} if isinstance(value, Mapping) else float(value)


Threshold = Annotated[Any, PlainValidator(_threshold)]


class _BackendConfig(_Section):
    cpu_num_threads: Annotated[int, Field(gt=0)] | None = None
    precision: Literal["fp32", "f32", "bf16", "int8"] = "fp32"
    # PaddleX's, for TensorRT: accepted and without effect, since shapes are those of the graph.
    use_dynamic_shapes: Any = None
    dynamic_shapes: Any = None


class HpiConfig(_Section):
    """PaddleX's `hpi_config`; looked at where `use_hpip` is true."""

    auto_config: bool = True
    backend: Literal["paddle", "openvino", "onnxruntime", "tensorrt"] | None = None
    backend_config: _BackendConfig | None = None
    # Accepted, since PaddleX's files may hold them, and without effect: the export has the ONNX graph, the pipeline the
    # device.
    model_name: Any = None
    device_type: Any = None
    device_id: Any = None
    hpi_info: Any = None
    auto_paddle2onnx: Any = None

    @property
    def threads(self) -> int | None:
        return self.backend_config.cpu_num_threads if self.backend_config else None

    def engine(self, device: str) -> str | None:
        """The engine that it names, for `device`; None leaves it to be chosen.

        Raises UserError if it neither names one nor lets one be chosen.
        """
        if self.backend is None:
            if not self.auto_config:
                raise UserError("hpi_config: auto_config is false and there is no backend; name one")
            return None
        if self.backend == "tensorrt":
            return "onnxruntime_tensorrt"
        precision = self.backend_config.precision if self.backend_config else "fp32"
        ending = "" if precision in ("fp32", "f32") else f"_{precision}"
        if self.backend == "onnxruntime" and device != "cpu":
            ending = "_cuda"
        return f"{self.backend}{ending}"


def read_hpi_config(value: Mapping[str, Any] | str) -> HpiConfig:
    """A mapping, or the text of one in YAML or JSON.

    Raises UserError that names the key.
    """
    try:
        tree = yaml.safe_load(value) if isinstance(value, str) else value
    except yaml.YAMLError as error:
        raise UserError(f"hpi_config: not readable: {' '.join(str(error).split())}") from None
    if not isinstance(tree, Mapping):
        raise UserError(f"hpi_config: must be a mapping such as {{backend: openvino}} (is: {value!r:.60})")
    try:
        return HpiConfig.model_validate(tree)
    except ValidationError as error:
        raise UserError(f"hpi_config: {_explain(error, HpiConfig)}") from None


class _Module(_Section):
    module_name: str = NAME
    model_name: str
    model_dir: str | None = None
    batch_size: Annotated[int, Field(gt=0)] = 1
    threshold: Threshold = None
    use_hpip: bool | None = None
    hpi_config: HpiConfig | None = None
    tiling: Any = None
    # PaddleX's own switches: accepted, since its files may hold them, and without effect here.
    engine: Any = None
    engine_config: Any = None


class _Serving(_Section):
    visualize: bool = True
    # PaddleX's, about where it stores what it sends: accepted and without effect.
    return_urls: Any = None
    extra: Any = None


class _Modules(_Section):
    InstanceSegmentation: _Module


class _Current(_Section):
    pipeline_name: Literal["instance_segmentation"]
    SubModules: _Modules
    device: str | None = None
    use_hpip: bool | None = None
    hpi_config: HpiConfig | None = None
    engine: Any = None
    engine_config: Any = None
    Serving: _Serving = _Serving()


class _Global(_Section):
    pipeline_name: Literal["instance_segmentation"]
    input: Any = None


class _Pipeline(_Section):
    model: str
    device: str | None = None
    batch_size: Annotated[int, Field(gt=0)] = 1
    threshold: Threshold = None
    tiling: Any = None


class _Older(_Section):
    Global: _Global | None = None
    Pipeline: _Pipeline
    NOTE: Any = None


def load_pipeline_config(pipeline: str | os.PathLike[str] | Mapping[str, Any] | None = None) -> PipelineConfig:
    """Read a pipeline config.

    Args:
        pipeline: path of a YAML file, a dict with its contents, the folder of an exported model, or the name
            `instance_segmentation` (also None), which stands for the newest run's exported model.

    Raises UserError that names the file, the key and what is possible.
    """
    if pipeline is None:
        pipeline = NAME
    if isinstance(pipeline, Mapping):
        return _parse(pipeline, origin="config", folder=Path())
    path = Path(pipeline)
    if path.suffix in (".yaml", ".yml") and not path.is_dir():
        return _parse(read_tree(path), origin=str(path), folder=path.parent)
    if path.is_dir():
        return PipelineConfig(model_dir=path)
    if str(pipeline) == NAME:
        return _newest()
    raise UserError(
        f"pipeline {pipeline}: neither {NAME}, nor an existing folder of an exported model, nor a .yaml file"
    )


def dump_pipeline_config(*, model_name: str, model_dir: Path | None, threshold: float) -> str:
    """The config, current generation, for an exported model; without `model_dir`, for PaddleX's own.

    `model_dir` is written as an absolute path: PaddleX takes a relative one from the working directory, so only an
    absolute one means the same from everywhere.
    """
    module = {
        "module_name": NAME,
        "model_name": model_name,
        "model_dir": str(model_dir.resolve()) if model_dir else None,
        "batch_size": 1,
        "threshold": threshold,
    }
    return dump_yaml({"pipeline_name": NAME, "SubModules": {"InstanceSegmentation": module}})


def read_tree(path: Path) -> Mapping[str, Any]:
    """The file as it stands.

    Raises UserError.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such pipeline config; `seg-tune export --to-pipeline-config` writes one") from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise UserError(f"{path}: not a readable YAML file: {' '.join(str(error).split())}") from None
    if not isinstance(tree, Mapping):
        raise UserError(f"{path}: a pipeline config is a mapping with pipeline_name and SubModules")
    return tree


def _parse(tree: Mapping[str, Any], *, origin: str, folder: Path) -> PipelineConfig:
    schema: type[_Section] = _Older if "Pipeline" in tree else _Current
    try:
        config = schema.model_validate(tree)
    except ValidationError as error:
        raise UserError(f"{origin}: {_explain(error, schema)}") from None
    if isinstance(config, _Older):
        section = config.Pipeline
        known = section.model in MODELS
        return PipelineConfig(
            model_name=section.model if known else None,
            model_dir=_official(section.model, origin=origin) if known else _folder(section.model, folder, origin),
            batch_size=section.batch_size,
            threshold=section.threshold,
            tiling=parse_tiling(section.tiling, origin=f"{origin}: Pipeline"),
            device=section.device,
        )
    assert isinstance(config, _Current)
    module = config.SubModules.InstanceSegmentation
    return PipelineConfig(
        model_name=module.model_name,
        model_dir=find_model(
            module.model_name, module.model_dir, origin=f"{origin}: SubModules.InstanceSegmentation", beside=folder
        ),
        batch_size=module.batch_size,
        threshold=module.threshold,
        tiling=parse_tiling(module.tiling, origin=f"{origin}: SubModules.InstanceSegmentation"),
        device=config.device,
        use_hpip=bool(config.use_hpip if module.use_hpip is None else module.use_hpip),
        hpi_config=module.hpi_config or config.hpi_config,
        visualize=config.Serving.visualize,
    )


def find_model(model_name: str, model_dir: str | None, *, origin: str, beside: Path) -> Path:
    """The folder of a model: `model_dir`, from the working directory on or from `beside`, or PaddleX's of this name.

    Raises UserError, which says `origin`, for a name that is none of the sixteen and a folder that is not there.
    """
    if model_name not in MODELS:
        close = difflib.get_close_matches(model_name, MODELS, n=1, cutoff=0.4)
        hint = f"did you mean {close[0]}?" if close else "`seg-tune models` lists them"
        raise UserError(f"{origin}: model_name: {model_name} is unknown; {hint}")
    return _folder(model_dir, beside, origin) if model_dir else _official(model_name, origin=origin)


def _folder(name: str, beside: Path, origin: str) -> Path:
    # PaddleX takes a relative path from the working directory; one from the config's folder is understood as well.
    for path in (expand(name), beside / name):
        if path.is_dir():
            return path
    raise UserError(f"{origin}: model_dir {name}: no such folder; `seg-tune export` makes one")


def _official(model_name: str, *, origin: str) -> Path:
    cache = Path(os.environ.get("PADDLE_PDX_CACHE_HOME", expand("~/.paddlex"))) / "official_models"
    for path in (cache / model_name, cache / f"{model_name}_infer"):
        if path.is_dir():
            return path
    raise UserError(
        f"{origin}: no model_dir, and PaddleX's {model_name} is not in {cache}; "
        "set model_dir to a folder that `seg-tune export` wrote"
    )


def _newest() -> PipelineConfig:
    folder = newest_export()
    return PipelineConfig(model_dir=folder or _official(DEFAULT, origin=f"pipeline {NAME}: no run in ./output"))


def newest_export() -> Path | None:
    """The folder that the newest run in ./output was exported to; None where there is no run.

    Raises UserError if it is not exported yet.
    """
    from toolkit.run import Run

    try:
        run = Run.find(None)
    except UserError:
        return None
    folder = run.path / "inference"
    if not folder.is_dir():
        raise UserError(f"pipeline {NAME}: the newest run, {run.path}, is not exported yet; run `seg-tune export`")
    return folder


def _explain(error: ValidationError, schema: type[BaseModel]) -> str:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    section: Any = schema
    for part in first["loc"][:-1]:
        annotation = section.model_fields[part].annotation
        section = next(k for k in (annotation, *getattr(annotation, "__args__", ())) if isinstance(k, type))
    keys = list(section.model_fields)
    if first["type"] == "extra_forbidden":
        close = difflib.get_close_matches(str(first["loc"][-1]), keys, n=1)
        return f"{place}: unknown key; " + (f"did you mean {close[0]}?" if close else f"known here: {', '.join(keys)}")
    if first["type"] == "missing":
        return f"{place}: missing"
    return f"{place}: {first['msg']} (is: {first['input']!r:.80})"
