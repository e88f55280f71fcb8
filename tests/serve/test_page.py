"""What the page's scripts work out by themselves, and that it says all in both languages."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from colorsys import hls_to_rgb
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as codec

from toolkit.serve.app import PAGE

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")


def of_script(name: str, expression: str) -> Any:
    code = f"{(PAGE / name).read_text(encoding='utf-8')}\nconsole.log(JSON.stringify({expression}));"
    return json.loads(
        subprocess.run(["node", "-"], input=code, capture_output=True, check=True, encoding="utf-8").stdout
    )


@needs_node
def test_masks_are_those_of_pycocotools() -> None:
    random = np.random.default_rng(0)
    instances, expected = [], []
    for x, y in ((0.5, 1.5), (12.4, 3.0), (7.5, 20.6)):
        height, width = (int(side) for side in random.integers(1, 30, 2))
        mask = (random.random((height, width)) < 0.7).astype(np.uint8)
        text = codec.encode(np.asfortranarray(mask))["counts"].decode()
        instances.append({"bbox": [x, y, x + width, y + height], "mask": {"size": [height, width], "rleResult": text}})
        full = np.zeros((60, 50), np.uint8)
        full[round(y) : round(y) + height, round(x) : round(x) + width] = mask
        expected.append(full)
    runs = of_script("masks.js", f"{json.dumps(instances)}.map((instance) => fullRuns(bitmapOf(instance), 50, 60))")
    for got, mask in zip(runs, expected, strict=True):
        assert np.array_equal(codec.decode(codec.frPyObjects(got, 60, 50)), mask)


@needs_node
def test_labels_can_be_read() -> None:
    inks = of_script("masks.js", "Array.from({ length: 100 }, (_, number) => [hue(number), inkOn(number)])")
    for degrees, ink in inks:
        light = luminance(degrees)
        assert (light + 0.05) / 0.05 >= 4.5 if ink == "#000" else 1.05 / (light + 0.05) >= 4.5


def luminance(degrees: float) -> float:
    """WCAG's, of a hue with the page's saturation and lightness."""
    rgb = hls_to_rgb(degrees / 360, 0.5, 0.8)
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in rgb]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@needs_node
def test_all_is_said_in_both_languages() -> None:
    english, chinese = of_script("texts.js", "Object.values(TEXTS).map(Object.keys)")
    assert english == chinese
    page, script = ((PAGE / name).read_text(encoding="utf-8") for name in ("index.html", "page.js"))
    said = re.findall(r'data-(?:text|label)="(\w+)"', page) + re.findall(r'(?:say|complain)\("(\w+)"', script)
    assert said
    assert {*said} <= {*english}
