from __future__ import annotations

from pathlib import Path

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paddle.static import InputSpec

from toolkit.nn.resize import resize_bilinear, upsample2x_nearest

SIDE = st.integers(1, 20)


@settings(max_examples=30, deadline=None)
@given(SIDE, SIDE, st.integers(2, 40), st.integers(2, 40))
def test_bilinear_equals_paddle_at_any_size(h: int, w: int, height: int, width: int) -> None:
    x = paddle.randn([2, 3, h, w])
    expected = F.interpolate(x, size=[height, width], mode="bilinear", align_corners=False)
    np.testing.assert_allclose(resize_bilinear(x, (height, width)).numpy(), expected.numpy(), atol=1e-5)


def test_one_target_pixel_shows_the_centre() -> None:
    x = paddle.to_tensor([[[[1.0, 2.0, 4.0, 5.0]]]])
    assert resize_bilinear(x, (1, 1)).item() == pytest.approx(3.0)


def test_bilinear_stays_exact_at_mask_sizes() -> None:
    x = paddle.randn([1, 4, 160, 160])
    expected = F.interpolate(x, size=[1080, 1919], mode="bilinear", align_corners=False)
    np.testing.assert_allclose(resize_bilinear(x, (1080, 1919)).numpy(), expected.numpy(), atol=5e-4)


@pytest.mark.parametrize("size", [(7, 11), (3, 5)])
def test_bilinear_takes_sizes_that_are_tensors(size: tuple[int, int]) -> None:
    x = paddle.randn([1, 2, 5, 6])
    tensors = tuple(paddle.to_tensor([side], dtype="int32") for side in size)
    np.testing.assert_allclose(resize_bilinear(x, tensors).numpy(), resize_bilinear(x, size).numpy(), atol=1e-6)


def test_nearest_equals_paddle_and_passes_gradients() -> None:
    x = paddle.randn([2, 3, 5, 4])
    x.stop_gradient = False
    y = upsample2x_nearest(x)
    assert (y.numpy() == F.interpolate(x, scale_factor=2, mode="nearest").numpy()).all()
    y.sum().backward()
    assert (x.grad.numpy() == 4).all()


def test_an_exported_graph_has_no_interpolate_and_a_free_size(tmp_path: Path) -> None:
    def resize(x: paddle.Tensor, size: paddle.Tensor) -> paddle.Tensor:
        return resize_bilinear(upsample2x_nearest(x), (size[0], size[1]))

    path = str(tmp_path / "resize")
    spec = [InputSpec([-1, 2, 6, 5], "float32", "x"), InputSpec([2], "int32", "size")]
    paddle.jit.save(paddle.jit.to_static(resize, input_spec=spec, full_graph=True), path)
    assert "interp" not in (tmp_path / "resize.json").read_text()
    x = paddle.randn([3, 2, 6, 5])
    out = paddle.jit.load(path)(x, paddle.to_tensor([17, 9], dtype="int32"))
    expected = F.interpolate(F.interpolate(x, scale_factor=2), size=[17, 9], mode="bilinear")
    np.testing.assert_allclose(out.numpy(), expected.numpy(), atol=1e-5)


def test_onednn_resizes_what_a_convolution_returns(tmp_path: Path) -> None:
    class Resized(paddle.nn.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.conv = paddle.nn.Conv2D(64, 64, 3, padding=1)

        def forward(self, x: paddle.Tensor) -> paddle.Tensor:
            return resize_bilinear(self.conv(x), (20, 24))

    layer = Resized()
    layer.eval()
    x = paddle.randn([2, 64, 16, 12])
    expected = layer(x).numpy()
    path = str(tmp_path / "resized")
    spec = [InputSpec([-1, 64, -1, -1], "float32", "x")]
    paddle.jit.save(paddle.jit.to_static(layer, input_spec=spec, full_graph=True), path)
    config = paddle.inference.Config(f"{path}.json", f"{path}.pdiparams")
    config.disable_gpu()
    config.enable_mkldnn()
    (got,) = paddle.inference.create_predictor(config).run([x])
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-4)
