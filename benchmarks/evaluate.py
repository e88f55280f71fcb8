"""Time and memory of evaluation against pycocotools and faster-coco-eval (`pip install faster-coco-eval`), on pictures
of COCO val's shape: 5,000 with 36,000 objects of 80 classes, and 100 detections each.

    python benchmarks/evaluate.py [--pictures 5000] [--rounds 1]

Each evaluator runs in a process of its own, in turn, and must come to the same figures of masks and boxes. The others
are given the detections as a list of results with RLE, which is made before the clock starts; ours makes what it needs
out of the masks that a model leaves, picture by picture. The annotations' polygons are drawn by each.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import multiprocessing
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from make_coco_size import annotations

from toolkit.data.coco import Annotation, Picture, Split
from toolkit.data.detections import Detections, coco_results
from toolkit.data.masks import Crop, rle_area, rle_box, segmentation_to_rle
from toolkit.evaluate.ap import Evaluator

OBJECTS = 7.2
"""A picture."""
FOUND = 100
Figures = dict[str, list[float]]


def make_split(pictures: int) -> Split:
    """The annotations, with the boxes and areas of their masks."""
    tree = annotations(pictures, round(pictures * OBJECTS), np.random.default_rng(0))
    made = [Picture(i["id"], Path(), i["file_name"], i["height"], i["width"], []) for i in tree["images"]]  # type: ignore[arg-type]
    for entry in tree["annotations"]:
        picture = made[entry["image_id"]]  # type: ignore[call-overload]
        given: Any = entry["segmentation"]
        if isinstance(given, list):
            given = [np.array(polygon) for polygon in given]
        rle = segmentation_to_rle(given, (picture.height, picture.width))
        shape = rle if entry["iscrowd"] else given
        label = int(entry["category_id"]) - 1  # type: ignore[call-overload]
        picture.annotations.append(
            Annotation(entry["id"], label, rle_box(rle), shape, float(rle_area(rle)), bool(entry["iscrowd"]))  # type: ignore[arg-type]
        )
    return Split("val", Path(), tuple(f"class {i}" for i in range(80)), tuple(range(1, 81)), made)


def find(picture: Picture) -> Detections:
    """What a model might find: each object a few times, more or less well, and what is not there."""
    rng = np.random.default_rng(picture.id)
    count = len(picture.annotations)
    boxes, labels, scores = np.zeros((FOUND, 4)), np.zeros(FOUND, np.int64), np.zeros(FOUND)
    frame = np.array([picture.width, picture.height] * 2, float)
    for i in range(FOUND):
        if count and i < 5 * count:
            truth = picture.annotations[i % count]
            x1, y1, x2, y2 = truth.bbox
            box = np.array(truth.bbox) + rng.normal(0, 0.02 + 0.06 * (i // count), 4) * ([x2 - x1, y2 - y1] * 2)
            labels[i] = truth.category if rng.random() < 0.8 else rng.integers(80)
            scores[i] = rng.beta(4, 2 + 2 * (i // count))
        else:
            corner, side = rng.uniform(0, 0.9, 2) * frame[:2], np.exp(rng.normal(3.4, 1.0, 2))
            box = np.concatenate([corner, corner + side])
            labels[i], scores[i] = 80 * rng.random() ** 2, rng.beta(1, 20)
        low = np.minimum(box[:2], box[2:]).clip(0, frame[:2] - 2)
        boxes[i] = np.concatenate([low, np.maximum(np.maximum(box[:2], box[2:]), low + 2).clip(0, frame[:2])])
    order = np.argsort(-scores)
    boxes = boxes[order].astype(np.float32)
    masks = [blob(rng, *box) for box in boxes.round().astype(int).tolist()]
    size = (picture.height, picture.width)
    return Detections(boxes, scores[order].astype(np.float32), labels[order], masks, size)


def blob(rng: np.random.Generator, x1: int, y1: int, x2: int, y2: int) -> Crop:
    """A ragged outline that fills its box."""
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    reach = rng.uniform(0.75, 1, 24)
    sides = np.array([max(x2 - x1, 1), max(y2 - y1, 1)])
    outline = (0.5 + 0.5 * np.stack([np.cos(angle), np.sin(angle)], 1) * reach[:, None]) * sides
    mask = np.zeros(sides[::-1].tolist(), np.uint8)
    cv2.fillPoly(mask, [outline.round().astype(np.int32)], (1,))
    return Crop(mask, x1, y1)


def ours(split: Split) -> tuple[float, Figures]:
    evaluator = Evaluator(split)
    seconds = 0.0
    for picture in split.pictures:
        found = find(picture)
        start = time.perf_counter()
        evaluator.add(picture.id, found)
        seconds += time.perf_counter() - start
    start = time.perf_counter()
    metrics = evaluator.summarize()
    seconds += time.perf_counter() - start
    return seconds, {"mask": list(metrics.mask.values()), "box": list(metrics.box.values())}  # type: ignore[arg-type]


def by_pycocotools(split: Split) -> tuple[float, Figures]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    return _by(split, COCO, COCOeval)


def by_faster_coco_eval(split: Split) -> tuple[float, Figures]:
    from faster_coco_eval import COCO, COCOeval_faster

    return _by(split, COCO, COCOeval_faster)


def _by(split: Split, coco: Callable[[], Any], measure: Callable[..., Any]) -> tuple[float, Figures]:
    truth, rows = coco(), list(_rows(split))
    truth.dataset = coco_tree(split)
    figures = {}
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        for kind, dropped in (("mask", "bbox"), ("box", "segmentation")):
            found = truth.loadRes([{key: value for key, value in row.items() if key != dropped} for row in rows])
            one = measure(truth, found, "segm" if kind == "mask" else "bbox")
            one.evaluate()
            one.accumulate()
            one.summarize()
            figures[kind] = list(one.stats[:12])
    return time.perf_counter() - start, figures


def _rows(split: Split) -> Iterator[dict[str, Any]]:
    for picture in split.pictures:
        yield from coco_results(picture.id, find(picture), split.category_ids)


def coco_tree(split: Split) -> dict[str, Any]:
    entries = []
    for picture in split.pictures:
        for one in picture.annotations:
            x1, y1, x2, y2 = one.bbox
            shape = one.segmentation if one.iscrowd else [polygon.tolist() for polygon in one.segmentation]
            entries.append(
                {
                    "id": len(entries) + 1,
                    "image_id": picture.id,
                    "category_id": one.category + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": one.area,
                    "iscrowd": int(one.iscrowd),
                    "segmentation": shape,
                }
            )
    images = [{"id": p.id, "height": p.height, "width": p.width} for p in split.pictures]
    return {"images": images, "annotations": entries, "categories": [{"id": i + 1, "name": str(i)} for i in range(80)]}


EVALUATORS = {"seg-tune": ours, "pycocotools": by_pycocotools, "faster-coco-eval": by_faster_coco_eval}


def run(name: str, pictures: int) -> tuple[float, Figures, float]:
    """Seconds, figures, and by how many MB the memory grew over that of the annotations."""
    split = make_split(pictures)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds, figures = EVALUATORS[name](split)
    return seconds, figures, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=1)
    asked = parser.parse_args()
    for _ in range(asked.rounds):
        results = {}
        for name in EVALUATORS:
            # A process that starts anew, so that the peak is its own.
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                results[name] = pool.apply(run, (name, asked.pictures))
        for name, (seconds, figures, memory) in results.items():
            ratio = seconds / results["seg-tune"][0]
            same = figures == results["pycocotools"][1]
            print(
                f"{name:17} {seconds:6.1f} s ({ratio:4.1f} times ours), peak {memory:6.0f} MB above the annotations, "
                f"figures {'equal to' if same else 'other than'} pycocotools' (mask AP {figures['mask'][0]:.6f})",
                flush=True,
            )


if __name__ == "__main__":
    main()
