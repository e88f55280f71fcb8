from __future__ import annotations

import cv2
import numpy as np
import pytest

from toolkit.data.preprocess import Preprocess
from toolkit.errors import UserError

RGB = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)


def test_fixed_size() -> None:
    prepared = Preprocess(
        [
            {"type": "Resize", "target_size": [48, 64], "keep_ratio": False, "interp": 2},
            {"type": "NormalizeImage", "mean": [0.0] * 3, "std": [1.0] * 3, "norm_type": "none"},
            {"type": "Permute"},
        ],
        origin="inference.yml",
    )(RGB)
    expected = cv2.resize(RGB, (64, 48), interpolation=cv2.INTER_CUBIC).astype(np.float32) / 255
    np.testing.assert_allclose(prepared.image, expected.transpose(2, 0, 1), rtol=1e-6)
    assert prepared.im_shape == (48, 64)
    assert prepared.size == (37, 53)
    assert prepared.scale_factor == (48 / 37, 64 / 53)


def test_kept_ratio_with_padding_and_normalisation() -> None:
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    prepared = Preprocess(
        [
            {"type": "Resize", "target_size": [64, 80], "keep_ratio": True, "interp": 1},
            {"type": "NormalizeImage", "mean": mean, "std": std, "is_scale": True},
            {"type": "Permute"},
            {"type": "PadStride", "stride": 32},
        ],
        origin="inference.yml",
    )(RGB)
    # The long side decides: 53 -> 80, 37 -> 56.
    assert prepared.im_shape == (56, 80)
    assert prepared.image.shape == (3, 64, 96)
    assert not prepared.image[:, 56:].any()
    assert not prepared.image[:, :, 80:].any()
    resized = cv2.resize(RGB, (80, 56), interpolation=cv2.INTER_LINEAR).astype(np.float32) / 255
    expected = ((resized - mean) / std).transpose(2, 0, 1)
    np.testing.assert_allclose(prepared.image[:, :56, :80], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"type": "Rotate"}, r"inference.yml: Preprocess\[0\]: unknown type Rotate; known are Resize"),
        ({"type": "Resize", "interp": 2}, r"Preprocess\[0\]: Resize needs target_size"),
        ({"type": "Resize", "target_size": [1, 2, 3]}, r"Preprocess\[0\]: Resize needs target_size"),
        ({"type": "Resize", "target_size": [8, 8], "interp": 9}, r"interp 0 to 4"),
    ],
)
def test_unknown_steps_are_refused(step: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Preprocess([step], origin="inference.yml")
