from __future__ import annotations

import math

import numpy as np
import paddle

from toolkit.nn.attention import DeformableAttention, SelfAttention, pixelwise


def test_training_and_inference_attend_alike() -> None:
    paddle.seed(0)
    layer = SelfAttention(32, heads=4)
    x, position = paddle.randn([2, 7, 32]), paddle.randn([1, 7, 32])
    layer.in_proj_bias.set_value(paddle.randn([96]))
    mask = paddle.where(paddle.rand([7, 7]) > 0.3, paddle.zeros([1]), paddle.full([1], -math.inf))
    mask = paddle.where(paddle.eye(7) > 0, paddle.zeros([1]), mask)
    trained = layer(x, position=position, mask=mask)
    layer.eval()
    np.testing.assert_allclose(layer(x, position=position, mask=mask).numpy(), trained.numpy(), atol=1e-5)


def test_attention_by_its_formula() -> None:
    paddle.seed(0)
    layer = SelfAttention(8, heads=2)
    x, position = paddle.randn([1, 5, 8]), paddle.randn([1, 5, 8])
    weight, bias = layer.in_proj_weight.numpy(), layer.in_proj_bias.numpy()
    placed = (x + position).numpy()[0]
    q, k, v = (
        source @ weight[:, i : i + 8] + bias[i : i + 8] for source, i in ((placed, 0), (placed, 8), (x.numpy()[0], 16))
    )
    heads = []
    for part in (slice(0, 4), slice(4, 8)):
        logits = q[:, part] @ k[:, part].T / 2
        share = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        heads.append(share @ v[:, part])
    expected = np.concatenate(heads, 1) @ layer.out_proj.weight.numpy() + layer.out_proj.bias.numpy()
    np.testing.assert_allclose(layer(x, position=position).numpy()[0], expected, atol=1e-5)


def test_a_mask_keeps_tokens_apart() -> None:
    paddle.seed(0)
    layer = SelfAttention(16, heads=2)
    x = paddle.randn([1, 4, 16])
    position = paddle.zeros([1, 4, 16])
    blocks = np.kron(np.eye(2), np.ones((2, 2)))
    mask = paddle.to_tensor(np.where(blocks > 0, 0, -np.inf).astype("float32"))
    changed = x.clone()
    changed[:, 2:] = 5.0
    first, second = (layer(t, position=position, mask=mask).numpy() for t in (x, changed))
    np.testing.assert_array_equal(first[:, :2], second[:, :2])
    assert (first[:, 2:] != second[:, 2:]).any()


def fresh(*, heads: int = 2, levels: int = 2, points: int = 3) -> DeformableAttention:
    """The layer as it is built, with maps that pass values on."""
    layer = DeformableAttention(4, heads=heads, levels=levels, points=points)
    for linear in (layer.value_proj, layer.output_proj):
        linear.weight.set_value(paddle.eye(4))
    return layer


def test_deformable_attention_looks_around_its_box() -> None:
    layer = fresh()
    sizes = [(8, 6), (4, 3)]
    # Every pixel holds its own place: x and y for both heads.
    memory = []
    for height, width in sizes:
        y, x = np.meshgrid((np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width, indexing="ij")
        memory.append(np.stack([x, y, x, y], -1).reshape(-1, 4))
    values = paddle.to_tensor(np.concatenate(memory)[None].astype("float32"))
    boxes = paddle.to_tensor([[[0.5, 0.4, 0.3, 0.2], [0.4, 0.6, 0.2, 0.2]]])
    seen = layer(paddle.zeros([1, 2, 4]), boxes=boxes, values=layer.values(values, sizes)).numpy()[0]
    # Of two heads one looks to the right, one to the left: 1, 2, 3 steps of a sixth of the box.
    step = boxes.numpy()[0, :, 2] / 6 * np.mean([1, 2, 3])
    np.testing.assert_allclose(seen[:, 0], boxes.numpy()[0, :, 0] + step, atol=1e-5)
    np.testing.assert_allclose(seen[:, 2], boxes.numpy()[0, :, 0] - step, atol=1e-5)
    np.testing.assert_allclose(seen[:, 1], boxes.numpy()[0, :, 1], atol=1e-5)


def test_offsets_and_weights_follow_the_query() -> None:
    paddle.seed(0)
    layer = fresh()
    layer.sampling_offsets.weight.set_value(paddle.randn([4, 24]))
    layer.attention_weights.weight.set_value(paddle.randn([4, 12]))
    memory = paddle.randn([2, 60, 4])
    query = paddle.randn([2, 5, 4])
    query.stop_gradient = False
    boxes = paddle.rand([2, 5, 4]) * 0.5 + 0.25
    layer(query, boxes=boxes, values=layer.values(memory, [(8, 6), (4, 3)])).pow(2).sum().backward()
    assert (query.grad.abs().sum(-1) > 0).all()
    for parameter in layer.parameters():
        assert parameter.grad.abs().sum() > 0


def test_what_training_and_inference_look_at_is_alike() -> None:
    paddle.seed(0)
    layer = DeformableAttention(8, heads=2, levels=2, points=3)
    layer.sampling_offsets.weight.set_value(paddle.randn([8, 24]))
    layer.attention_weights.weight.set_value(paddle.randn([8, 12]))
    sizes = [(8, 6), (4, 3)]
    maps = [paddle.randn([2, 8, *size]) for size in sizes]
    memory = paddle.concat([level.flatten(2).transpose([0, 2, 1]) for level in maps], axis=1)
    trained, known = layer.values(memory, sizes), pixelwise(layer.value_proj, maps)
    for one, other in zip(trained, known, strict=True):
        np.testing.assert_allclose(other.numpy(), one.numpy(), atol=1e-5)
    query, boxes = paddle.randn([2, 5, 8]), paddle.rand([2, 5, 4]) * 0.5 + 0.25
    expected = layer(query, boxes=boxes, values=trained).numpy()
    layer.eval()
    np.testing.assert_allclose(layer(query, boxes=boxes, values=known).numpy(), expected, atol=1e-5)
