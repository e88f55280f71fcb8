"""The sample dataset is what its script makes."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np

from toolkit.data.images import read_rgb

DATASETS = Path(__file__).parents[2] / "datasets"


def test_the_script_makes_the_same_annotations_and_pictures(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("make_shapes", DATASETS / "make_shapes.py")
    script = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "make_shapes", script)
    spec.loader.exec_module(script)
    counts = {"train": 13, "val": 2}  # up to the picture with the crowd
    monkeypatch.setattr(script, "PICTURES", counts)
    script.main(tmp_path)
    for split, count in counts.items():
        name = f"annotations/instance_{split}.json"
        made, kept = (json.loads((folder / name).read_text()) for folder in (tmp_path, DATASETS / "shapes"))
        numbers = {image["id"] for image in made["images"]}
        assert made["images"] == kept["images"][:count]
        assert made["annotations"] == [a for a in kept["annotations"] if a["image_id"] in numbers]
        assert made["categories"] == kept["categories"]
        for image in made["images"]:
            new, old = (read_rgb(folder / "images" / image["file_name"]) for folder in (tmp_path, DATASETS / "shapes"))
            # Encoders of JPEG may differ a little.
            assert np.abs(new.astype(int) - old).mean() < 3


def test_it_is_small():
    assert sum(file.stat().st_size for file in (DATASETS / "shapes").rglob("*")) < 2_000_000
