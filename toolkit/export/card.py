"""The model card: README.md of an exported model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from toolkit.pipeline.certificate import Certificate
from toolkit.recipe import Recipe, dump_recipe
from toolkit.run import Run


def write_card(folder: Path, *, recipe: Recipe, certificate: Certificate, run: Path | None) -> Path:
    """Write `README.md`: what the model is, how good it is, how it is used, how it came about."""
    # Where its author keeps the pictures is nobody's business.
    data = recipe.data.model_copy(update=dict.fromkeys(("path", "train_json", "val_json", "images")))
    shown = dump_recipe(recipe.model_copy(update={"data": data}))
    sections = [
        _head(recipe),
        _intended(recipe),
        _figures(run),
        _agreement(certificate),
        _use(recipe),
        _origin(run),
        f"## Training\n\nThe recipe, as it was run:\n\n```yaml\n{shown}```",
    ]
    path = folder / "README.md"
    path.write_text("\n\n".join(section for section in sections if section) + "\n", encoding="utf-8")
    return path


def _head(recipe: Recipe) -> str:
    height, width = recipe.data.input_size
    classes = "\n".join(f"{i}. {name}" for i, name in enumerate(recipe.classes))
    size = f"short side {height}, long side up to {width}" if recipe.data.keep_ratio else f"{height} x {width}"
    return (
        f"# {recipe.model.name}\n\n"
        f"Instance segmentation; {len(recipe.classes)} classes; network input {size} pixels; "
        f"instances are shown from a score of {recipe.predict.threshold}.\n\n"
        f"Classes:\n\n{classes}"
    )


def _intended(recipe: Recipe) -> str:
    one = "it tells apart" if len(recipe.classes) > 1 else "it knows"
    tiles = " Larger pictures are seen in tiles." if recipe.tiling else ""
    return (
        "## Intended use\n\n"
        f"To find the instances of the classes above, which are all {one}, with their masks, in pictures like those it "
        f"was trained on: of the same kind of scene, camera and size of objects.{tiles} Figures hold for the data they "
        "were measured on; `seg-tune eval --data` measures on others. Scores rank what is found; they are no "
        "probabilities. A decision about people, or one that cannot be undone, should not rest on it alone."
    )


def _origin(run: Path | None) -> str:
    """By what it can be known which data, weights and code it came from."""
    origin = Run(run).origin() if run else {}
    if not origin:
        return ""
    data, weights = origin["data"], origin["weights"]
    parent = f"`{weights['name']}` (SHA-256 `{weights['sha256']}`)" if weights else "fresh weights"
    return (
        "## Origin\n\n"
        f"- Data: {data['pictures']} pictures with {data['annotations']} annotations to train on. SHA-256 of the "
        f"annotation files: train `{data['train annotations']}`, val `{data['val annotations']}`.\n"
        f"- Started from: {parent}.\n"
        f"- Run: `{run.name if run else ''}`; seg-tune {origin['code']}."
    )


def _figures(run: Path | None) -> str:
    """AP on the validation pictures, where the run was evaluated."""
    evaluation = _read(run, "evaluate_result.json")
    if not evaluation:
        return ""
    rows = "\n".join(
        f"| {name} | {_percent(evaluation['mask'][key])} | {_percent(evaluation['box'][key])} |"
        for name, key in (("AP", "AP"), ("AP50", "AP50"), ("AP75", "AP75"))
    )
    by_class = "\n".join(
        f"| {name} | {_percent(ap)} | {_percent(evaluation['box_by_class'][name])} |"
        for name, ap in evaluation["mask_by_class"].items()
    )
    data = f" (annotations `{known[:16]}`)" if (known := evaluation.get("annotations_sha256")) else ""
    return (
        f"## Figures\n\nOn {evaluation['pictures']} validation pictures{data}, in per cent:\n\n"
        f"| | mask | box |\n|---|---|---|\n{rows}\n{by_class}"
    )


def _agreement(certificate: Certificate) -> str:
    rows = "\n".join(
        f"| {name} | {a.matched} of {a.rows} | {a.score:.1e} | {a.box:.3f} | {a.mask_iou_mean:.4f} "
        f"| {_change(a.mask_ap_change)} | {a.ms_per_picture:.0f} | {'yes' if a.holds else 'by name only'} |"
        for name, a in certificate.backends.items()
    )
    warning = "" if certificate.learnt else f"\n\nWarning: {certificate.warning()}."
    return (
        "## Exported against trained\n\n"
        f"On {certificate.pictures} pictures ({certificate.source}), which are in `sample`; largest differences; "
        f"the trained model took {certificate.trained_ms_per_picture:.0f} ms a picture on this machine.\n\n"
        "| engine | rows matched | score | box, px | mask IoU, mean | mask AP | ms | runs |\n"
        f"|---|---|---|---|---|---|---|---|\n{rows}{warning}"
    )


def _use(recipe: Recipe) -> str:
    return f"""## Use

```bash
seg-tune predict --pipeline . --input picture.jpg --save-path result
```

```python
from toolkit import create_pipeline

pipeline = create_pipeline(".")
for result in pipeline.predict("picture.jpg"):
    result.print()
    result.save_to_img("result")
    result.save_to_json("result")
```

PaddleX reads this folder unchanged:

```python
from paddlex import create_model

model = create_model("{recipe.model.name}", model_dir=".")
```

`inference.json` and `inference.pdiparams` are Paddle's graph with masks at picture size; `inference.onnx`, if it is
here, is the fast graph, whose masks the pipeline brings to picture size itself; `inference.yml` says how pictures are
prepared and what the classes are called."""


def _read(run: Path | None, name: str) -> dict[str, Any]:
    if run is None or not (run / name).is_file():
        return {}
    tree = json.loads((run / name).read_text(encoding="utf-8"))
    return tree if isinstance(tree, dict) else {}


def _change(ap: float | None) -> str:
    return "n/a" if ap is None else f"{ap:+.4f}"


def _percent(value: float | None) -> str:
    return "n/a" if value is None else f"{100 * value:.1f}"
