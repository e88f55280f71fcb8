"""What `seg-tune validate` takes: time and memory of the annotation part, and a picture in datasets of rising size.

    python benchmarks/make_coco_size.py FOLDER && python benchmarks/validate.py FOLDER
    python benchmarks/validate.py FOLDER --pictures PICTURES

The first measures the annotations of FOLDER. The second copies the pictures of the folder PICTURES over and over into
datasets of rising size, and prints the time of a picture beside that in the smallest.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from pathlib import Path

from PIL import Image

from toolkit.data.findings.check import check_sources
from toolkit.data.layouts import find_sources

SIZES = (250, 500, 1000, 2000, 4000)


def annotations(folder: Path) -> None:
    """Time and memory of everything but opening pictures."""
    start = time.process_time()
    checked = check_sources(find_sources(folder), max_images=0)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    seconds = checked.seconds["annotations"]
    print(f"annotations: {seconds:.1f} s, with names of pictures {time.process_time() - start:.1f} s of CPU time")
    print(f"peak memory: {peak:.2f} GiB")


def pictures(source: Path) -> None:
    """Time of a picture, the more there are."""
    files = sorted(path for path in source.rglob("*") if path.suffix in (".jpg", ".png"))
    first = 0.0
    for size in SIZES:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            for split, count in (("train", size), ("val", size // 10)):
                write(folder, split, [files[i % len(files)] for i in range(count)])
            start = time.process_time()
            checked = check_sources(find_sources(folder))
            each = (time.process_time() - start) / (size + size // 10)
        first = first or each
        print(f"{size:6} pictures: {1000 * each:.2f} ms of CPU time each, {each / first:.2f} of the first", end="; ")
        print(f"{checked.seconds['pictures']:.1f} s")


def write(folder: Path, split: str, files: list[Path]) -> None:
    (folder / "images").mkdir(exist_ok=True)
    (folder / "annotations").mkdir(exist_ok=True)
    images = []
    for number, file in enumerate(files):
        name = f"{split}{number}{file.suffix}"
        # Some bytes behind the end make each file another one.
        (folder / "images" / name).write_bytes(file.read_bytes() + os.urandom(8))
        with Image.open(file) as image:
            images.append({"id": number, "file_name": name, "width": image.width, "height": image.height})
    square = [[10, 10, 40, 10, 40, 40, 10, 40]]
    common = {"category_id": 1, "segmentation": square, "bbox": [10, 10, 30, 30], "area": 900, "iscrowd": 0}
    entries = [{**common, "id": n, "image_id": n} for n in range(len(files))]
    tree = {"images": images, "annotations": entries, "categories": [{"id": 1, "name": "thing"}]}
    (folder / "annotations" / f"instance_{split}.json").write_text(json.dumps(tree))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pictures", type=Path)
    given = parser.parse_args()
    if given.pictures:
        pictures(given.pictures)
    else:
        annotations(given.folder)
