"""A folder through real engines, several pictures at a time."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.export.conftest import pictures, recipe_of, tiny
from toolkit import create_pipeline
from toolkit.data.masks import rle_area
from toolkit.export.onnx import missing_converter, save_onnx
from toolkit.export.static import save_program, write_description
from toolkit.pipeline import sessions

NAME = "PP-YOLOE_seg-S"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported model, and beside it pictures of many sizes."""
    folder = tmp_path_factory.mktemp("stream")
    model, recipe = tiny(NAME), recipe_of(NAME)
    save_program(model, folder, data=recipe.data)
    if not missing_converter():
        save_onnx(model, folder, data=recipe.data)
    write_description(folder, recipe=recipe, mask_frame=model.mask_frame, mask_clip=model.mask_clip)
    (folder / "pictures").mkdir()
    sizes = [(60 + 31 * i % 97, 50 + 43 * i % 101) for i in range(8)]
    for i, rgb in enumerate(pictures(sizes=sizes)):
        cv2.imwrite(str(folder / "pictures" / f"{i:02}.png"), rgb)
    return folder


@pytest.mark.parametrize(
    ("engine", "device", "batch_size"),
    [("onnxruntime", "cpu", 1), ("onnxruntime", "cpu:3", 2), ("paddle", "cpu:2", 2)],
)
def test_side_by_side_is_as_one_by_one(
    folder: Path, engine: str, device: str, batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if engine == "onnxruntime" and missing_converter():
        pytest.skip("no converter to ONNX")
    monkeypatch.setattr(sessions, "cores", lambda: 4)
    pipeline = create_pipeline(folder, engine=engine, device=device)
    files = sorted((folder / "pictures").iterdir())
    together = list(pipeline.predict(folder / "pictures", batch_size=batch_size))
    assert [result["input_path"] for result in together] == list(map(str, files))
    assert sum(len(result["boxes"]) for result in together) > 50
    for file, result in zip(files, together, strict=True):
        [alone] = pipeline.predict(file)
        assert [box["label"] for box in result["boxes"]] == [box["label"] for box in alone["boxes"]]
        for key in ("score", "coordinate"):
            np.testing.assert_allclose(
                [box[key] for box in result["boxes"]], [box[key] for box in alone["boxes"]], rtol=1e-3, atol=1e-2
            )
        for one, other in zip(result.to_rle(), alone.to_rle(), strict=True):
            assert abs(rle_area(one) - rle_area(other)) <= 2
