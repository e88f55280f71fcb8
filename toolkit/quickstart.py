"""The whole way in one call, on the sample dataset that ships with the package, without network."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from toolkit import cores
from toolkit.bundled import sample_dataset
from toolkit.data.coco import find_dataset
from toolkit.device import available_devices
from toolkit.errors import UserError
from toolkit.evaluate.run import evaluate_trained
from toolkit.evaluate.score import percent
from toolkit.export.run import export_trained
from toolkit.pipeline.predictor import create_pipeline
from toolkit.places import writing
from toolkit.train.start import start_training
from toolkit.zoo import find_model

# What lets a model learn from scratch within minutes on a CPU; fine-tuning, which the recipes are for, is gentler.
FROM_SCRATCH: dict[str, Any] = {
    "data.input_size": [160, 160],
    "data.train_sizes": [],
    "data.train_transforms": [{"D4": {"p": 1.0}}],
    "train.epochs": 14,
    "train.batch_size": 8,
    "train.lr_batch_size": 8,
    "train.lr_multipliers": {},
    "train.optimizer": {"name": "AdamW", "weight_decay": 1e-4},
    "train.schedule": {"name": "cosine", "warmup_steps": 50},
    "train.clip_norm": 1.0,
    "train.ema": {"decay": 0.98},
    "train.sync_bn": False,
    "train.eval_every": 7,
    "train.pretrained": "none",
}
RATES = {"ppyoloe_seg": 2e-3, "solov2": 7e-4, "mask_rcnn": 4e-4, "cascade_mask_rcnn": 4e-4, "mask_rtdetr": 5e-4}
"""Learning rates of the families."""


def quickstart(*, model: str = "PP-YOLOE_seg-S", output: Path = Path("quickstart"), device: str = "auto") -> Path:
    """Validate the sample data, train on it from scratch, evaluate, export, write a pipeline config and predict.

    Everything is written into the new folder `output`. On a CPU, two processes train together unless `device` says
    otherwise: convolutions as small as here gain little from a second thread. Returns the path of the picture with
    the predictions.

    Raises UserError if `output` exists, or for an unknown model.
    """
    settings = {**FROM_SCRATCH, "train.lr": RATES[find_model(model).family]}
    if output.exists():
        raise UserError(f"{output}: exists already; remove it, or choose another folder with --output")
    console = Console(highlight=False, soft_wrap=True)
    times: dict[str, float] = {}

    @contextmanager
    def step(title: str) -> Iterator[None]:
        console.print(f"[bold]{title}[/bold]")
        start = time.perf_counter()
        yield
        times[title] = time.perf_counter() - start

    data = output / "shapes"
    with writing(output):
        output.mkdir(parents=True)
        shutil.copytree(sample_dataset(), data)
    with step("validate"):
        dataset = find_dataset(data)
        for split in (dataset.train, dataset.val):
            objects = sum(len(picture.annotations) for picture in split.pictures)
            console.print(
                f"{split.name}: {len(split.pictures)} pictures, {objects} objects of {len(split.classes)} classes"
            )
    with step("train"):
        run, _ = start_training(
            model,
            overrides={**settings, "data.path": str(data)},
            device="cpu:2" if device == "auto" and available_devices() == ["cpu"] and cores() > 1 else device,
            output=output / "output",
        )
    with step("evaluate"):
        metrics = evaluate_trained(run=run.path, device=device)
    with step("export"):
        exported = export_trained(run=run.path, to_pipeline_config=True, config=output / "instance_segmentation.yaml")
    with step("predict"):
        pipeline = create_pipeline(exported.config)
        busiest = max(dataset.val.pictures, key=lambda picture: len(picture.annotations))
        pictures = []
        for result in pipeline.predict(str(busiest.path)):
            result.save_to_json(output / "results")
            pictures.append(result.save_to_img(output / "results"))

    console.print(f"[bold]{model} on {metrics.pictures} held-out pictures[/bold]")
    table = Table(show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    table.add_row("mask AP", percent(metrics.mask["AP"]))
    table.add_row("box AP", percent(metrics.box["AP"]))
    for title, seconds in times.items():
        table.add_row(title, f"{seconds:.0f} s")
    table.add_section()
    table.add_row("run", _from_here(run.path))
    table.add_row("exported model", _from_here(exported.folder))
    table.add_row("pipeline config", str(exported.config))
    table.add_row("picture", str(pictures[0]))
    console.print(table)
    console.print(f"try: seg-tune predict --pipeline {exported.config} --input {data / 'images'} --save-path more")
    return pictures[0]


def _from_here(path: Path) -> str:
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
