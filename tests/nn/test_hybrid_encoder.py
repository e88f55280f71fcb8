from __future__ import annotations

import numpy as np
import paddle
import pytest

from toolkit.nn.hybrid_encoder import MaskHybridEncoder, _sine_position


def encoder(**changes: object) -> MaskHybridEncoder:
    settings = {
        "dim": 16,
        "attended": 1,
        "layers": 1,
        "heads": 4,
        "feedforward": 32,
        "expansion": 0.5,
        "mask_channels": (8, 4),
        "prototypes": 6,
        "true_aspect": True,
    }
    return MaskHybridEncoder([4, 8, 12, 20], **{**settings, **changes})  # type: ignore[arg-type]


def features(height: int = 64, width: int = 96) -> list[paddle.Tensor]:
    paddle.seed(0)
    channels = zip((4, 8, 12, 20), (4, 8, 16, 32), strict=True)
    return [paddle.randn([2, c, height // stride, width // stride]) for c, stride in channels]


@pytest.mark.parametrize("expansion", [0.5, 1.0])
def test_three_levels_and_the_mask_features(expansion: float) -> None:
    outputs = encoder(expansion=expansion)(features())
    expected = [(2, 16, 8, 12), (2, 16, 4, 6), (2, 16, 2, 3), (2, 6, 16, 24)]
    assert [tuple(output.shape) for output in outputs] == expected


def test_what_is_exported_computes_what_was_trained() -> None:
    model = encoder()
    for layer in model.sublayers():
        if isinstance(layer, paddle.nn.BatchNorm2D):
            layer._use_global_stats = True
    trained = model(features())
    model.eval()
    for mine, theirs in zip(model(features()), trained, strict=True):
        np.testing.assert_allclose(mine.numpy(), theirs.numpy(), atol=1e-4)


@pytest.mark.parametrize(("prototypes", "maps"), [(6, 5), (4, 5), (3, 3)])
def test_masks_of_the_factored_features_are_masks_of_the_features(prototypes: int, maps: int) -> None:
    model = encoder(prototypes=prototypes)
    model.eval()
    paddle.seed(1)
    model.enc_mask_output[1].bias.set_value(paddle.randn([prototypes]))
    *levels, whole = model(features())
    same, factored = model.factored(features())
    assert factored.maps.shape[1] == maps
    vectors = paddle.randn([2, 7, prototypes])
    expected = paddle.matmul(vectors, whole.flatten(2)).numpy()
    np.testing.assert_allclose(factored.masks(vectors).numpy(), expected, atol=1e-4)
    for one, other in zip(levels, same, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


def test_positions_tell_rows_and_columns_apart() -> None:
    position = _sine_position(3, 5, 16, inner=5).numpy().reshape(3, 5, 16)
    assert (position[:, :1, :8] == position[:, 1:, :8]).all()  # the first half is the row's
    assert (position[:1, :, 8:] == position[1:, :, 8:]).all()
    np.testing.assert_allclose(position[2, 3, 0], np.sin(2), rtol=1e-6)
    np.testing.assert_allclose(position[2, 3, 12], np.cos(3), rtol=1e-6)
    assert len(np.unique(position.reshape(15, 16).round(5), axis=0)) == 15


def test_the_original_order_is_the_same_at_square_maps_only() -> None:
    square = [_sine_position(4, 4, 16, inner=side) for side in (4, 4)]
    assert (square[0] == square[1]).all()
    wide = [_sine_position(2, 4, 16, inner=side) for side in (2, 4)]
    assert (wide[0] != wide[1]).any()


def test_gradients_reach_every_parameter() -> None:
    model = encoder()
    paddle.add_n([output.pow(2).mean() + output.sin().mean() for output in model(features())]).backward()
    assert [name for name, value in model.named_parameters() if not value.stop_gradient and value.grad is None] == []
