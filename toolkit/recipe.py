"""The schema of a recipe: the only home of a setting's type, default and meaning.

A recipe is a YAML file; `recipes/<model>.yaml` are the complete ones that ship with the package. Unknown keys are
errors. The resolved recipe of a run is written into the run's folder, and `--recipe` reads it back.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from toolkit.errors import UserError
from toolkit.zoo import find_model

Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Triple = tuple[float, float, float]
TileSide = Annotated[int, Field(ge=32)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Model(Section):
    name: str
    """One of the sixteen models; `seg-tune models` lists them."""
    options: dict[str, Any] = {}
    """Keyword arguments of `build_model` beyond the class count and the input size, for variants of the model."""


class Data(Section):
    path: str | None = None
    """Folder of the dataset; `--data` sets it."""
    train_json: str | None = None
    """Annotation files and the folder of the pictures, where `path` has none of the known layouts."""
    val_json: str | None = None
    images: str | None = None
    input_size: tuple[Positive, Positive]
    """Height and width of the network input, pixels. With `keep_ratio`: short side, and the most for the long side."""
    keep_ratio: bool = False
    """Keep the aspect ratio when resizing, and pad to a multiple of 32."""
    interpolation: Literal["nearest", "linear", "cubic", "area"] = "cubic"
    """How pictures are resized."""
    mean: Triple = (0.0, 0.0, 0.0)
    """Subtracted from the channels (R, G, B, in 0-1)."""
    std: Triple = (1.0, 1.0, 1.0)
    """What the channels are divided by after that."""
    train_sizes: list[Positive] = []
    """Sides of the square from which each training batch draws one at random (with `keep_ratio`: short sides).
    Empty: always `input_size`."""
    train_transforms: list[dict[str, Any]] = []
    """Augmentation in order. An entry is `<class>: {argument: value}`, the class of albumentations or of
    `toolkit.data.transforms`."""
    class_balanced: bool = False
    """Whether pictures of rare classes come more often, others less: in proportion to the square root of the share of
    pictures that have their rarest class. An epoch stays as long as it is."""
    workers: Annotated[int, Field(ge=0)] = 2
    """Processes that prepare batches. 0: the training process itself."""


class Optimizer(Section):
    name: Literal["AdamW", "Momentum"]
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    momentum: Fraction = 0.9
    """Momentum's factor; AdamW takes its usual 0.9 and 0.999."""
    decay_norms: bool = True
    """Whether norms (weight and bias of batch and layer norm) decay as well."""


class Schedule(Section):
    name: Literal["constant", "step", "cosine"]
    milestones: list[Positive] = []
    """`step`: epochs at whose end the rate is multiplied by `gamma`, in terms of the recipe's own `epochs`."""
    gamma: float = 0.1
    stretch: Annotated[float, Field(ge=1)] = 1.0
    """`cosine`: length of the half wave in units of the training time; 1.2 leaves the rate above zero at the end."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    warmup_epochs: Annotated[float, Field(ge=0)] = 0.0
    """Linear warm-up, in steps or in epochs, whichever is longer; never more than a tenth of the training
    (a fine-tuning run of a few hundred steps would otherwise end inside it)."""
    warmup_start: Fraction = 0.0
    """Factor of the rate at the first step."""


class Ema(Section):
    decay: Annotated[float, Field(gt=0, lt=1)]
    ramp: Literal["exponential", "threshold"] = "exponential"
    """How the decay d grows over step t: `exponential` d (1 - exp(-(t + 1) / 2000)),
    `threshold` min(d, (1 + t) / (10 + t))."""


class Train(Section):
    epochs: Positive
    batch_size: Positive
    """Pictures a step, over all devices."""
    accumulate: Positive = 1
    """Parts that a batch is computed in, one after the other, where the whole does not fit into memory. What models
    compute over a batch, such as the statistics of batch norms, they compute over a part."""
    lr: Annotated[float, Field(gt=0)]
    """Learning rate at `lr_batch_size` pictures a step; scaled in proportion to the batch size in use."""
    lr_batch_size: Positive
    optimizer: Optimizer
    schedule: Schedule
    lr_multipliers: dict[str, Annotated[float, Field(ge=0)]] = {}
    """Factor of the learning rate for parameters whose name starts with the key (the longest match wins)."""
    freeze: list[str] = []
    """Parameters whose name starts with one of these are not trained."""
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    """Gradients are scaled down to at most this global L2 norm."""
    ema: Ema | None = None
    """Exponential moving average of the weights; it is what is evaluated and kept."""
    sync_bn: bool = True
    """On several devices: whether batch norms take their statistics from all of them, or each from its own part."""
    pretrained: str = "official"
    """`official`, `none`, or the path of a `.pdparams` or `.safetensors` file."""
    eval_every: Positive = 1
    """Epochs between evaluations; the last epoch is always evaluated."""
    early_stop: Positive | None = None
    """The run ends after this many evaluations in a row without a better mask AP."""
    skip_at_most: Positive = 5
    """Steps whose loss or gradients are not finite are skipped; with this many in a row the run ends."""
    amp: Literal["O1", "O2"] | None = None
    """Mixed precision on accelerators; on the CPU it does nothing."""
    amp_dtype: Literal["float16", "bfloat16"] = "float16"
    """What `amp` computes in. bfloat16 has the range of float32, so that the loss needs no scaling."""
    save_every_minutes: Annotated[float, Field(ge=0)] = 10.0
    """Checkpoints inside an epoch; there is one after each epoch as well. 0: after every step."""
    seed: int = 0


class Evaluate(Section):
    batch_size: Positive = 1
    max_detections: Positive = 100
    """Detections a picture that enter AP, the best by score."""


class Predict(Section):
    threshold: Fraction = 0.5
    """Least score of an instance that predictions show."""


class Tiling(Section):
    """Pictures larger than a tile are seen tile by tile, in training, evaluation and prediction alike."""

    size: tuple[TileSide, TileSide]
    """Height and width of a tile, pixels of the picture. A tile is resized to the network input as a picture is."""
    overlap: Annotated[float, Field(ge=0, lt=0.9)] = 0.2
    """What neighbouring tiles share, at the least, as a part of a tile's side. Smaller objects are whole in some tile;
    larger ones are joined by what two tiles show of them there, so that without overlap nothing is joined."""
    join: Annotated[float, Field(gt=0, le=1)] = 0.5
    """From which agreement of their masks where tiles overlap two detections are one instance; see
    `toolkit.data.tiling.join`."""
    least_part: Fraction = 0.1
    """Training: objects of which a tile shows a smaller part (of the object, or of the tile where that is smaller) are
    left out of that tile."""
    empty: Annotated[float, Field(ge=0)] = 0.1
    """Training: tiles without objects in an epoch, in proportion to those with objects, all of which come. Drawn anew
    for each epoch."""


class Recipe(Section):
    """Everything that a run depends on, besides the pictures."""

    model: Model
    data: Data
    train: Train
    evaluate: Evaluate = Evaluate()
    predict: Predict = Predict()
    tiling: Tiling | None = None
    """Large pictures go through the network in tiles; None: as a whole, at the size of the network input."""
    classes: list[str] = []
    """Names of the classes in label order, taken from the data when training starts."""

    @model_validator(mode="after")
    def _milestones_lie_inside(self) -> Recipe:
        if any(m >= self.train.epochs for m in self.train.schedule.milestones):
            raise ValueError("train.schedule.milestones must be smaller than train.epochs")
        return self


def load_recipe(source: str | Path, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Read the recipe of a model (by its name) or of a YAML file (by its path).

    `overrides` maps dotted keys (`train.epochs`) to values. Changing `train.epochs` alone moves the milestones of a
    step schedule in proportion.

    Raises UserError for an unknown model, unreadable YAML, an unknown key or a value of the wrong kind.
    """
    is_file = str(source).endswith((".yaml", ".yml"))
    path = Path(source) if is_file else find_model(str(source)).recipe
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such recipe") from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise UserError(f"{path}: not a readable YAML file: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path}: a recipe is a mapping with the keys {', '.join(Recipe.model_fields)}")
    if overrides:
        tree = _override(tree, overrides)
    return parse_recipe(tree, origin=str(path))


def parse_recipe(tree: Mapping[str, Any], *, origin: str) -> Recipe:
    """Check `tree` against the schema; `origin` names it in errors."""
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise _explained(error, origin, ()) from None


def parse_tiling(tree: Any, *, origin: str) -> Tiling | Literal[False] | None:
    """Check a `tiling` block that stands outside a recipe, or its YAML; `off` is False, and None stays None.

    Raises UserError.
    """
    try:
        tree = yaml.safe_load(tree) if isinstance(tree, str) else tree
        return tree if tree is None or tree is False else Tiling.model_validate(tree)
    except yaml.YAMLError:
        raise UserError(f"{origin}: tiling: not valid YAML; say {{size: [640, 640]}}, or off") from None
    except ValidationError as error:
        raise _explained(error, origin, ("tiling",)) from None


def _explained(error: ValidationError, origin: str, above: tuple[str, ...]) -> UserError:
    first = error.errors()[0]
    location = (*above, *first["loc"])
    place = ".".join(str(part) for part in location) or "recipe"
    if first["type"] == "extra_forbidden":
        known = _keys_beside(location)
        close = difflib.get_close_matches(str(location[-1]), known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}"
        return UserError(f"{origin}: {place}: unknown key; {hint}")
    return UserError(f"{origin}: {place}: {first['msg']} (is: {first['input']!r:.80})")


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """`["train.epochs=10"]` -> `{"train.epochs": 10}`; values are read as YAML."""
    result: dict[str, Any] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key.strip():
            raise UserError(f"--set {setting}: must have the form key=value, as in --set train.epochs=10")
        try:
            result[key.strip()] = _numbers(yaml.safe_load(value))
        except yaml.YAMLError:
            raise UserError(f"--set {setting}: the value is not valid YAML") from None
    return result


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as YAML that `load_recipe` reads back to an equal one."""
    return dump_yaml(recipe.model_dump(mode="json"))


def dump_yaml(tree: Any) -> str:
    """Plain data as YAML that reads back equal, keys in their order, letters of all languages as they are."""
    text: str = yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return text


class _Dumper(yaml.SafeDumper):
    """PyYAML takes three characters of Unicode for line breaks and folds them into spaces, unless they are quoted."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = '"' if any(character in text for character in "\x85\u2028\u2029") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def _numbers(value: Any) -> Any:
    # YAML 1.1 reads 1e-4, which everyone writes, as a string.
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _override(tree: dict[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    result = _copy(tree)
    for dotted, value in overrides.items():
        *parents, leaf = dotted.split(".")
        node = result
        for parent in parents:
            if node.get(parent) is None:  # so a run's recipe writes a section that it does without
                node[parent] = {}
            child = node[parent]
            if not isinstance(child, dict):
                raise UserError(f"--set {dotted}: {parent} is a value, not a section")
            node = child
        node[leaf] = value
    if "train.epochs" in overrides and "train.schedule.milestones" not in overrides:
        _rescale_milestones(tree, result)
    return result


def _copy(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _copy(value) for key, value in tree.items()}
    return tree


def _rescale_milestones(before: dict[str, Any], after: dict[str, Any]) -> None:
    try:
        ratio = int(after["train"]["epochs"]) / int(before["train"]["epochs"])
        schedule = after["train"]["schedule"]
        moved = sorted({max(1, round(m * ratio)) for m in schedule.get("milestones", [])})
        schedule["milestones"] = [m for m in moved if m < int(after["train"]["epochs"])]
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return  # The schema says what is wrong, with its place.


def _keys_beside(location: tuple[int | str, ...]) -> list[str]:
    section: Any = Recipe
    for part in location[:-1]:
        field = section.model_fields.get(part)
        kinds = [field.annotation, *getattr(field.annotation, "__args__", ())] if field else []
        section = next((k for k in kinds if isinstance(k, type) and issubclass(k, Section)), None)
        if section is None:
            return []
    return list(section.model_fields)
