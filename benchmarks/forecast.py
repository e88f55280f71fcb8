"""What the rehearsal of a training foretells, beside what the run then uses.

    python benchmarks/forecast.py [MODEL ...] [--epochs 3]

Trains on a part of the sample dataset at 192 x 192 pixels with one process, and prints peak of memory and time of an
epoch, each used / foretold; between 0.8 and 1.33 they are within 25 %. The machine should have nothing else to do: what
it does during the rehearsal counts for all epochs.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from toolkit import bundled, quickstart
from toolkit.data.coco import find_dataset
from toolkit.data.prepare import sample_dataset
from toolkit.train.start import start_training
from toolkit.zoo import find_model

MODELS = ("PP-YOLOE_seg-S", "MaskRCNN-ResNet50-FPN", "SOLOv2", "Mask-RT-DETR-S")
PICTURES = 56
"""Of which six sevenths are trained on."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare forecasts with runs; see the head of this file.")
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--epochs", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        data = Path(place) / "data"
        sample_dataset(bundled.sample_dataset(), data, count=PICTURES)
        pictures = len(find_dataset(data).train.pictures)
        for name in arguments.models:
            settings = {
                **quickstart.FROM_SCRATCH,
                "data.path": str(data),
                "data.input_size": [192, 192],
                "train.lr": quickstart.RATES[find_model(name).family],
                "train.batch_size": 4,
                "train.epochs": arguments.epochs,
                "train.eval_every": 1,
            }
            run, result = start_training(name, overrides=settings, device="cpu", output=Path(place) / "output")
            lines = [json.loads(line) for line in run.metrics.read_text(encoding="utf-8").splitlines()]
            last = [line["images_per_s"] for line in lines if "images_per_s" in line][-1]
            forecast, epoch = result["forecast"], pictures / last
            print(
                f"{name}: memory {result['peak_memory'] / forecast['memory']:.2f} of {forecast['memory'] / 2**30:.2f} "
                f"GiB foretold, epoch {epoch / forecast['epoch_seconds']:.2f} of {forecast['epoch_seconds']:.1f} s, "
                f"all {result['seconds'] / forecast['seconds']:.2f} of {forecast['seconds']:.0f} s"
            )


if __name__ == "__main__":
    main()
