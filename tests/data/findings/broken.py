"""Datasets that are broken in one way each, and what has to be found in them."""

from __future__ import annotations

import copy
import io
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as codec

HEIGHT, WIDTH = 36, 48
COUNTS = {"train": 6, "val": 3}
Tree = dict[str, Any]
Expected = tuple[str, str, str]
"""Code, split and JSON path."""


def square(x: float, y: float, side: float) -> list[float]:
    return [x, y, x + side, y, x + side, y + side, x, y + side]


def encoded(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(seed: int, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC)


PICTURES = {f"{s} {i}.png": encoded(noise(100 * n + i)) for n, s in enumerate(COUNTS) for i in range(COUNTS[s])}


class Broken:
    """A sound dataset in PaddleX's layout, to be spoilt."""

    def __init__(self, root: Path, *, times: int = 1) -> None:
        self.root = root
        counts = {split: times * count for split, count in COUNTS.items()}
        self.trees: dict[str, Any] = {split: self._tree(split, count) for split, count in counts.items()}
        self.files = {
            f"images/{split} {i}.png": PICTURES.get(f"{split} {i}.png") or encoded(noise(1000 * count + i))
            for split, count in counts.items()
            for i in range(count)
        }
        self.raw: dict[str, Callable[[str], bytes]] = {}
        """What becomes of the text of an annotation file."""

    def _tree(self, split: str, count: int) -> Tree:
        images = [
            {"id": i + 1, "file_name": f"{split} {i}.png", "width": WIDTH, "height": HEIGHT} for i in range(count)
        ]
        annotations = []
        for i in range(2 * count):
            x, y, side = 3 + 20 * (i % 2), 4 + i % 5, 10 + i % 7
            annotations.append(
                {
                    "id": 50 + i,
                    "image_id": i // 2 + 1,
                    "category_id": (7, 3)[i % 2],
                    "segmentation": [square(x, y, side)],
                    "bbox": [x, y, side, side],
                    "area": side * side,
                    "iscrowd": 0,
                }
            )
        categories = [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}]
        return {"images": images, "annotations": annotations, "categories": categories}

    def write(self) -> Path:
        for name, data in self.files.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        for split, tree in self.trees.items():
            path = self.root / "annotations" / f"instance_{split}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.raw.get(split, str.encode)(json.dumps(tree, ensure_ascii=False)))
        return self.root


class Spot:
    """An entry chosen at random, and ways to spoil it."""

    def __init__(self, broken: Broken, section: str, rng: np.random.Generator) -> None:
        self.broken, self.section = broken, section
        self.split = ("train", "val")[int(rng.integers(2))]
        self.tree = broken.trees[self.split]
        # Not the first: rules on twins speak of the later one.
        self.row = int(rng.integers(1, len(self.tree[section])))
        self.entry = self.tree[section][self.row]

    def __call__(self, code: str, key: str = "") -> list[Expected]:
        path = f"{self.section}[{self.row}]"
        return [(code, self.split, f"{path}.{key}" if key else path)]

    def file(self) -> str:
        return f"images/{self.entry['file_name']}"


Spoiler = Callable[[Broken, np.random.Generator], list[Expected]]
SPOILERS: dict[str, Spoiler] = {}


def setting(name: str, section: str, key: str, value: Any, code: str, place: str | None = None) -> None:
    """A spoiler that sets `key` of an entry to `value`, or to what it makes of the entry."""

    def spoil(broken: Broken, rng: np.random.Generator) -> list[Expected]:
        spot = Spot(broken, section, rng)
        spot.entry[key] = value(spot.entry) if callable(value) else copy.deepcopy(value)
        return spot(code, key if place is None else place)

    assert name not in SPOILERS
    SPOILERS[name] = spoil


def spoiler(make: Spoiler) -> Spoiler:
    SPOILERS[make.__name__.strip("_")] = make
    return make


# Files


def _text(name: str, change: Callable[[str], bytes], code: str) -> None:
    def spoil(broken: Broken, rng: np.random.Generator) -> list[Expected]:
        split = ("train", "val")[int(rng.integers(2))]
        broken.raw[split] = change
        return [(code, split, "")]

    SPOILERS[name] = spoil


_text("cut off", lambda text: text[: len(text) // 2].encode(), "json-syntax")
_text("empty file", lambda text: b"", "json-syntax")
_text("nested too deep", lambda text: b"[" * 100_000, "json-syntax")
_text("trailing comma", lambda text: text.replace("}]", "},]").encode(), "json-syntax")
_text("a list", lambda text: b"[]", "json-not-coco")
_text("no images", lambda text: text.replace('"images"', '"imgs"').encode(), "json-not-coco")
_text("annotations as object", lambda text: b'{"images": [], "annotations": {}, "categories": []}', "json-not-coco")
_text("NaN", lambda text: text.replace('"iscrowd": 0', '"iscrowd": 0, "score": NaN', 3).encode(), "json-nan")
_text("Infinity", lambda text: text.replace('"area": 1', '"area": Infinity, "x": 1', 1).encode(), "json-nan")
_text("GBK", lambda text: text.replace('"cat"', '"狗"').encode("gbk"), "json-encoding")
_text("UTF-16", lambda text: text.encode("utf-16"), "json-encoding")
_text("a number beyond floats", lambda text: text.replace("[[", "[[1" + "0" * 400 + ",", 1).encode(), "json-syntax")
_text("no pictures", lambda text: json.dumps({**json.loads(text), "images": []}).encode(), "images-empty")
_text("no annotations", lambda text: json.dumps({**json.loads(text), "annotations": []}).encode(), "annotations-empty")
_text("no categories", lambda text: json.dumps({**json.loads(text), "categories": []}).encode(), "categories-empty")


@spoiler
def val_missing(broken: Broken, rng: np.random.Generator) -> list[Expected]:
    del broken.trees["val"]
    return [("file-missing", "val", "")]


@spoiler
def boxes_only(broken: Broken, rng: np.random.Generator) -> list[Expected]:
    for annotation in broken.trees["train"]["annotations"]:
        annotation["segmentation"] = []
    return [("annotations-empty", "train", ""), ("segmentation-missing", "train", "annotations[0].segmentation")]


for section in ("images", "annotations", "categories"):
    noun = {"images": "image", "annotations": "annotation", "categories": "category"}[section]
    for number, value in enumerate(("7", 2.5, True, [1], {"a": 1}, 2**70)):
        if number < 3 or section == "annotations":
            setting(f"{noun} id of kind {number}", section, "id", value, f"{noun}-id-invalid")

    def twice(broken: Broken, rng: np.random.Generator, section: str = section, noun: str = noun) -> list[Expected]:
        spot = Spot(broken, section, rng)
        spot.entry["id"] = spot.tree[section][0]["id"]
        return spot(f"{noun}-id-duplicate", "id")

    def no_object(broken: Broken, rng: np.random.Generator, section: str = section) -> list[Expected]:
        spot = Spot(broken, section, rng)
        spot.tree[section][spot.row] = [None, 5, "entry", []][int(rng.integers(4))]
        return spot("entry-not-object")

    SPOILERS[f"{noun} id twice"] = twice
    SPOILERS[f"{noun} no object"] = no_object


def lacking(section: str, key: str, code: str = "key-missing") -> None:
    def spoil(broken: Broken, rng: np.random.Generator) -> list[Expected]:
        spot = Spot(broken, section, rng)
        del spot.entry[key]
        return spot(code, key)

    SPOILERS[f"{section} without {key}"] = spoil


for section, key in (
    *(("images", "id"), ("images", "file_name"), ("annotations", "image_id"), ("annotations", "category_id")),
    *(("categories", "id"), ("categories", "name")),
):
    lacking(section, key)
lacking("annotations", "id", "annotation-id-missing")
lacking("annotations", "segmentation", "segmentation-missing")
lacking("annotations", "area", "area-missing")
lacking("annotations", "bbox", "bbox-missing")
lacking("images", "width", "image-size-mismatch")
for name, value in (("unknown", 99), ("text", "1"), ("null", None), ("negative", -1)):
    setting(f"image_id {name}", "annotations", "image_id", value, "annotation-image-unknown")
    setting(f"category_id {name}", "annotations", "category_id", value, "annotation-category-unknown")


@spoiler
def sizes_missing(broken: Broken, rng: np.random.Generator) -> list[Expected]:
    spot = Spot(broken, "images", rng)
    del spot.entry["width"], spot.entry["height"]
    return spot("image-size-missing", "width")


# Categories

setting("name no text", "categories", "name", 5, "category-name-invalid")
setting("name empty", "categories", "name", "  ", "category-name-invalid")
setting("name twice", "categories", "name", "cat", "category-name-duplicate")


@spoiler
def similar_name(broken: Broken, rng: np.random.Generator) -> list[Expected]:
    name = ("Cat", "cat ", "ｃａｔ", "c a t", "cat_")[int(rng.integers(5))]
    for tree in broken.trees.values():
        tree["categories"].append({"id": 8, "name": name})
    return [("category-name-similar", split, "categories[2].name") for split in broken.trees]


@spoiler
def space_in_name(broken: Broken, rng: np.random.Generator) -> list[Expected]:
    for tree in broken.trees.values():
        tree["categories"][1]["name"] = (" dog", "dog\n", "do\u200bg", "dog\t")[int(rng.integers(4))]
    return [("category-name-spaces", "train", "categories[1].name")]


@spoiler
def unused_class(broken: Broken, rng: np.random.Generator) -> list[Expected]:
    for tree in broken.trees.values():
        tree["categories"].append({"id": 9, "name": "bird"})
    return [("category-unused", "train", "categories[2].name")]


@spoiler
def group(broken: Broken, rng: np.random.Generator) -> list[Expected]:
    for tree in broken.trees.values():
        for category in tree["categories"]:
            category["supercategory"] = "animals"
        tree["categories"].append({"id": 0, "name": "animals", "supercategory": "none"})
    return [("category-group", split, "categories[2].name") for split in broken.trees]


@spoiler
def class_only_in_val(broken: Broken, rng: np.random.Generator) -> list[Expected]:
    broken.trees["val"]["categories"][1]["name"] = "horse"
    return [("category-only-in-val", "val", "categories[1].name"), ("categories-differ", "val", "")]


@spoiler
def classes_in_another_order(broken: Broken, rng: np.random.Generator) -> list[Expected]:
    broken.trees["val"]["categories"] = [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]
    return [("categories-differ", "val", "")]


# Pictures


def _picture(name: str, code: str, change: Callable[[bytes, Spot], bytes], key: str = "file_name") -> None:
    def spoil(broken: Broken, rng: np.random.Generator) -> list[Expected]:
        spot = Spot(broken, "images", rng)
        broken.files[spot.file()] = change(broken.files[spot.file()], spot)
        return spot(code, key)

    SPOILERS[name] = spoil


def _turned(picture: Image.Image, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(picture, "JPEG", exif=exif)


def _animated() -> bytes:
    return encoded(noise(8), "GIF", save_all=True, append_images=[noise(9)])


_picture("text for a picture", "image-unreadable", lambda data, spot: b"<html>404</html>")
_picture("empty picture", "image-unreadable", lambda data, spot: b"")
_picture("cut off picture", "image-truncated", lambda data, spot: data[: len(data) // 2])
_picture("cut off JPEG", "image-truncated", lambda data, spot: encoded(noise(1), "JPEG", quality=95)[:-300])
_picture("another size", "image-size-mismatch", lambda data, spot: encoded(noise(2, (50, 48))), "width")
_picture("half the size", "image-size-mismatch", lambda data, spot: encoded(noise(2, (18, 24))), "width")
_picture("gray", "image-gray", lambda data, spot: encoded(noise(3).convert("L")))
_picture("CMYK", "image-cmyk", lambda data, spot: encoded(noise(4).convert("CMYK"), "JPEG"))
_picture("alpha", "image-alpha", lambda data, spot: encoded(noise(5).convert("RGBA")))
_picture("wrong suffix", "image-extension", lambda data, spot: encoded(noise(6), "JPEG"))
_picture("one colour", "image-blank", lambda data, spot: encoded(Image.new("RGB", (WIDTH, HEIGHT), (9, 9, 9))))
_picture("turned pixels", "image-exif-rotated", lambda data, spot: _turned(noise(7), 6), "")
_picture("turned by 180", "image-exif", lambda data, spot: _turned(noise(7), 3), "")
_picture("animated", "image-frames", lambda data, spot: _animated())


@spoiler
def sixteen_bits(broken: Broken, rng: np.random.Generator) -> list[Expected]:
    spot = Spot(broken, "images", rng)
    pixels = np.random.default_rng(3).integers(0, 65535, (HEIGHT, WIDTH)).astype(np.uint16)
    broken.files[spot.file()] = encoded(Image.fromarray(pixels))
    return spot("image-16bit", "file_name")


@spoiler
def bomb(broken: Broken, rng: np.random.Generator) -> list[Expected]:
    spot = Spot(broken, "images", rng)
    data = bytearray(encoded(noise(1)))
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    # The header's checksum does not agree any more, which readers look at later than at the size.
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    broken.files[spot.file()] = bytes(data)
    return spot("image-bomb", "file_name")


def _resized(name: str, code: str, size: tuple[int, int]) -> None:
    def spoil(broken: Broken, rng: np.random.Generator) -> list[Expected]:
        spot = Spot(broken, "images", rng)
        broken.files[spot.file()] = encoded(noise(11, size))
        spot.entry.update(height=size[0], width=size[1])
        return spot(code, "file_name")

    SPOILERS[name] = spoil


_resized("tiny picture", "image-tiny", (20, 20))
_resized("thin picture", "image-thin", (40, 800))
_resized("longer than any decoder likes", "image-bomb", (1, 70_000))

# Paths

for number, value in enumerate((None, 5, "", "a\0b", ["a.png"])):
    setting(f"file_name of kind {number}", "images", "file_name", value, "image-name-invalid")
for value in ("../../etc/passwd", "/etc/passwd", "a/../../../x.png", "..\\..\\x.png"):
    setting(f"file_name {value}", "images", "file_name", value, "image-outside")
setting("missing picture", "images", "file_name", "nowhere.png", "image-missing")
setting("name too long", "images", "file_name", "x" * 5000 + ".png", "image-missing")
setting("a folder", "images", "file_name", ".", "image-missing")
setting("case", "images", "file_name", lambda entry: entry["file_name"].upper(), "image-name-case")


@spoiler
def backslash(broken: Broken, rng: np.random.Generator) -> list[Expected]:
    spot = Spot(broken, "images", rng)
    broken.files[f"images/in/{spot.entry['file_name']}"] = encoded(noise(200))
    spot.entry["file_name"] = f"in\\{spot.entry['file_name']}"
    return spot("image-name-backslash", "file_name")


@spoiler
def unlisted(broken: Broken, rng: np.random.Generator) -> list[Expected]:
    broken.files["images/forgotten.jpg"] = encoded(noise(300), "JPEG")
    return [("image-unlisted", "train", "")]


# Geometry


def _far_corner(box: list[float]) -> list[float]:
    return [box[0] + box[2], box[1] + box[3]]


for value in (2, -1, "0", [], "yes"):
    setting(f"iscrowd {value!r}", "annotations", "iscrowd", value, "iscrowd-invalid")
for name, value, code in (
    ("a text", "polygon", "segmentation-type"),
    ("a number", 5, "segmentation-type"),
    ("not nested", square(2, 2, 9), "polygon-not-numbers"),
    ("nested in pairs", [[[2, 2], [9, 2], [9, 9], [2, 9]]], "polygon-not-numbers"),
    ("texts", [["2", "2", "9", "2", "9", "9", "2", "9"]], "polygon-not-numbers"),
    ("null inside", [[2, 2, None, 2, 9, 9, 2, 9]], "polygon-not-numbers"),
    ("true inside", [square(2, 2, 9), [True, 2, 9, 2, 9, 9]], "polygon-not-numbers"),
    ("odd", [[2, 2, 9, 2, 9, 9, 2]], "polygon-odd"),
    ("odd second part", [square(2, 2, 9), [2, 2, 9, 2, 9, 9, 2]], "polygon-odd"),
    ("in other units", [square(2, 2, 9000)], "polygon-far-outside"),
    ("beyond all measure", [[1e300, -1e300, 1e300, 4, 5, 6]], "polygon-far-outside"),
    ("too many parts", [square(2, 2, 3)] * 10_001, "outline-too-long"),
    ("scribble", [[0, 0, WIDTH, HEIGHT] * 50_000], "outline-too-long"),
    ("two points", [[2, 2, 9, 9]], "polygon-few-points"),
    ("empty part", [square(2, 2, 9), []], "polygon-few-points"),
    ("a line", [[2, 5, 9, 5, 4, 5]], "polygon-degenerate"),
    ("a point", [[3, 3, 3, 3, 3, 3]], "polygon-degenerate"),
    ("between the pixels", [[3.6, 3.6, 3.9, 3.6, 3.9, 3.9, 3.6, 3.9]], "mask-empty"),
    ("sticking out", [square(-6, 4, 12)], "polygon-outside"),
    ("outside", [square(-15, -12, 9)], "mask-outside"),
    ("bow tie", [[2, 2, 20, 20, 20, 2, 2, 20]], "polygon-crossing"),
    ("tooth through the other side", [[2, 10, 30, 10, 30, 20, 24, 20, 16, 0.5, 8, 20, 2, 20]], "polygon-crossing"),
    ("null", None, "segmentation-missing"),
    ("empty list", [], "segmentation-missing"),
    ("RLE without counts", {"size": [HEIGHT, WIDTH]}, "rle-malformed"),
    ("RLE of nothing", {}, "rle-malformed"),
    ("RLE negative", {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH + 5, -5]}, "rle-malformed"),
    ("RLE of fractions", {"size": [HEIGHT, WIDTH], "counts": [0.5, HEIGHT * WIDTH]}, "rle-malformed"),
    ("RLE with signs unknown", {"size": [HEIGHT, WIDTH], "counts": "@@ZZ0é"}, "rle-malformed"),
    ("RLE that ends early", {"size": [HEIGHT, WIDTH], "counts": "h"}, "rle-malformed"),
    ("RLE beyond 32 bits", {"size": [HEIGHT, WIDTH], "counts": "ooooooooo0"}, "rle-malformed"),
    ("RLE huge counts", {"size": [HEIGHT, WIDTH], "counts": [2**31, 2**31]}, "rle-sum"),
    ("RLE sum", {"size": [HEIGHT, WIDTH], "counts": [1, 2, 3]}, "rle-sum"),
    ("RLE turned", {"size": [WIDTH, HEIGHT], "counts": [HEIGHT * WIDTH]}, "rle-size"),
    ("RLE size huge", {"size": [10**9, 10**9], "counts": [10**18]}, "rle-size"),
    ("RLE size no list", {"size": "36x48", "counts": [HEIGHT * WIDTH]}, "rle-size"),
    ("RLE empty", {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]}, "mask-empty"),
):
    setting(f"segmentation: {name}", "annotations", "segmentation", value, code)
for value in ([1, 2, 3], "box", [1, 2, -3, 4], [1, 2, "3", 4], [None] * 4, {}):
    setting(f"bbox {value!r}", "annotations", "bbox", value, "bbox-invalid")
setting("bbox elsewhere", "annotations", "bbox", [1, 1, 3, 3], "bbox-mismatch")
setting("bbox of corners", "annotations", "bbox", lambda a: [*a["bbox"][:2], *_far_corner(a["bbox"])], "bbox-corners")
for value in (0, -4, "12", [], True):
    setting(f"area {value!r}", "annotations", "area", value, "area-invalid")
setting("area too large", "annotations", "area", 5000, "area-mismatch")
setting("crowd with polygons", "annotations", "iscrowd", 1, "crowd-polygon", "segmentation")

# Duplicates


@spoiler
def annotation_twice(broken: Broken, rng: np.random.Generator) -> list[Expected]:
    spot = Spot(broken, "annotations", rng)
    spot.tree["annotations"].append({**spot.entry, "id": 999})
    return [("annotation-duplicate", spot.split, f"annotations[{len(spot.tree['annotations']) - 1}]")]


@spoiler
def rle_twice(broken: Broken, rng: np.random.Generator) -> list[Expected]:
    spot = Spot(broken, "annotations", rng)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[4:20, 5:22] = 1
    counts = codec.encode(np.asfortranarray(mask))["counts"].decode()
    rle = {"size": [HEIGHT, WIDTH], "counts": counts}
    twin = {**spot.entry, "segmentation": rle, "bbox": [5, 4, 17, 16], "area": 272}
    spot.tree["annotations"] += [{**twin, "id": 998}, {**twin, "id": 999}]
    return [("annotation-duplicate", spot.split, f"annotations[{len(spot.tree['annotations']) - 1}]")]


@spoiler
def two_classes(broken: Broken, rng: np.random.Generator) -> list[Expected]:
    spot = Spot(broken, "annotations", rng)
    spot.tree["annotations"].append({**spot.entry, "id": 999, "category_id": 10 - spot.entry["category_id"]})
    return [("annotation-two-classes", spot.split, f"annotations[{len(spot.tree['annotations']) - 1}]")]


@spoiler
def listed_twice(broken: Broken, rng: np.random.Generator) -> list[Expected]:
    spot = Spot(broken, "images", rng)
    spot.tree["images"].append({**spot.entry, "id": 999})
    return [("image-listed-twice", spot.split, f"images[{len(spot.tree['images']) - 1}].file_name")]


@spoiler
def same_picture(broken: Broken, rng: np.random.Generator) -> list[Expected]:
    spot = Spot(broken, "images", rng)
    broken.files[spot.file()] = broken.files[f"images/{spot.tree['images'][0]['file_name']}"]
    return spot("image-duplicate", "file_name")


@spoiler
def leak(broken: Broken, rng: np.random.Generator) -> list[Expected]:
    row = int(rng.integers(COUNTS["val"]))
    broken.files[f"images/val {row}.png"] = broken.files["images/train 2.png"]
    return [("image-in-both-splits", "val", f"images[{row}].file_name")]


@spoiler
def nearly_a_leak(broken: Broken, rng: np.random.Generator) -> list[Expected]:
    row = int(rng.integers(COUNTS["val"]))
    again = Image.open(io.BytesIO(broken.files["images/train 2.png"]))
    broken.files[f"images/val {row}.png"] = encoded(again, "JPEG", quality=60)
    return [("image-similar-in-both-splits", "val", f"images[{row}].file_name")]


# Statistics


@spoiler
def few_of_everything(broken: Broken, rng: np.random.Generator) -> list[Expected]:
    broken.trees["val"]["annotations"] = [a for a in broken.trees["val"]["annotations"] if a["category_id"] == 7]
    return [
        ("class-few", "train", "categories[0].name"),
        ("class-not-in-val", "train", "categories[1].name"),
        ("split-small", "train", ""),
        ("split-small", "val", ""),
    ]


@spoiler
def negatives(broken: Broken, rng: np.random.Generator) -> list[Expected]:
    broken.trees["train"]["annotations"] = broken.trees["train"]["annotations"][2:]
    return [("images-negative", "train", "")]


@spoiler
def crowded(broken: Broken, rng: np.random.Generator) -> list[Expected]:
    common = {"image_id": 1, "category_id": 7}
    many = [{**common, "id": 1000 + i, "segmentation": [square(i % 40, i // 40, 4)]} for i in range(1100)]
    broken.trees["train"]["annotations"] += many
    return [("image-crowded", "train", "images[0]"), ("class-imbalance", "train", "")]


setting("tiny instance", "annotations", "segmentation", [square(3, 3, 2)], "instance-tiny")
WHOLE = [[0, 0, WIDTH, 0, WIDTH, HEIGHT, 0, HEIGHT]]
setting("instance over all", "annotations", "segmentation", WHOLE, "instance-huge")
setting("thin instance", "annotations", "segmentation", [[1, 3, 45, 3, 45, 4.5, 1, 4.5]], "instance-thin")
