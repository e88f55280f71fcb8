"""Golden figures of PaddleDetection's models, and what tests need to compare a model of ours with them.

The figures were measured at 3 classes and an input of 256 x 320 on the two pictures in `data/`, float32 on a CPU.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import paddle
from numpy.typing import NDArray
from paddle import nn

from tests.golden import fill

HERE = Path(__file__).parent
INPUT_SIZE = (256, 320)
CLASSES = 3


def figures(model: str) -> Any:
    """The opened npz of one model."""
    return np.load(HERE / "figures" / f"{model}.npz")


def params(model: str) -> dict[str, tuple[tuple[int, ...], str, str]]:
    """State_dict of one model: key -> shape, dtype, and `train`, `frozen` or `buffer`."""
    rows = (line.split(",") for line in (HERE / "params" / f"{model}.csv").read_text().splitlines())
    return {
        key: (tuple(int(side) for side in shape.split("x") if side), dtype, kind) for key, shape, dtype, kind in rows
    }


def described(model: nn.Layer) -> dict[str, tuple[tuple[int, ...], str, str]]:
    """What `params` must equal, from a built model."""
    trainable = {key: not value.stop_gradient for key, value in model.named_parameters()}
    kinds = {True: "train", False: "frozen", None: "buffer"}
    return {
        key: (tuple(value.shape), str(value.dtype).removeprefix("paddle."), kinds[trainable.get(key)])
        for key, value in model.state_dict().items()
    }


def load(model: nn.Layer, golden: Any) -> None:
    """Give `model` the weights that the figures were made with."""
    values = fill.state_dict({key: value.shape for key, value in model.state_dict().items()}, golden)
    missing, unexpected = model.set_state_dict(values)
    assert not unexpected
    assert all(fill.fill(key, ()) is None for key in missing)


def batch(*, train: bool) -> dict[str, Any]:
    """The reference batch: both pictures with their objects, or the first picture alone."""
    tree = json.loads((HERE / "data" / "instances.json").read_text())
    pictures = tree["images"] if train else tree["images"][:1]
    images = np.stack([_read(picture["file_name"]) for picture in pictures])
    result: dict[str, Any] = {
        "image": paddle.to_tensor(images),
        "im_shape": paddle.to_tensor([[float(side) for side in INPUT_SIZE]] * len(pictures)),
        "scale_factor": paddle.ones([len(pictures), 2]),
    }
    if train:
        objects = [[a for a in tree["annotations"] if a["image_id"] == picture["id"]] for picture in pictures]
        result["gt_class"] = [paddle.to_tensor([a["category_id"] - 1 for a in group]) for group in objects]
        result["gt_bbox"] = [paddle.to_tensor([_xyxy(a["bbox"]) for a in group]) for group in objects]
        result["gt_mask"] = [paddle.to_tensor(np.stack([_mask(a) for a in group])) for group in objects]
    return result


@contextmanager
def fixed_draws(monkeypatch: Any) -> Iterator[None]:
    """Every `paddle.rand` gives `fill.sequence` of its shape."""
    with monkeypatch.context() as patch:
        patch.setattr(paddle, "rand", lambda shape, *_, **__: paddle.to_tensor(fill.sequence([int(n) for n in shape])))
        yield


def assert_digest(golden: Any, prefix: str, tensor: Any, *, rtol: float) -> None:
    """Compare `tensor` with the digest stored under `prefix`; `rtol` is relative to the tensor's standard deviation
    for single values (elements near zero carry the rounding of large ones)."""
    actual = fill.digest(tensor.numpy() if hasattr(tensor, "numpy") else tensor)
    assert tuple(actual["shape"]) == tuple(golden[f"{prefix}/shape"]), prefix
    scale = max(float(golden[f"{prefix}/std"]), abs(float(golden[f"{prefix}/mean"])))
    rtol = max(rtol, 1e-12)  # float64 sums depend on the order of memory
    for part in ("mean", "std", "absmax", "sample"):
        np.testing.assert_allclose(
            actual[part], golden[f"{prefix}/{part}"], rtol=rtol, atol=rtol * scale, err_msg=f"{prefix}/{part}"
        )


def assert_losses(
    golden: Any, step: int, losses: Mapping[str, Any], *, rtol: float, of_masks: float | None = None
) -> None:
    """Compare every loss before `step` by name; `of_masks`: tolerance of `loss_mask`, if another."""
    names = {key.rpartition("/")[2] for key in golden.files if key.startswith(f"train/step{step}/")}
    assert set(losses) == names
    for name in sorted(names):
        expected = float(golden[f"train/step{step}/{name}"])
        tolerance = of_masks if of_masks and name == "loss_mask" else rtol
        np.testing.assert_allclose(
            float(losses[name]), expected, rtol=tolerance, atol=1e-6, err_msg=f"step {step}: {name}"
        )


def assert_gradients(golden: Any, model: nn.Layer, *, rtol: float) -> None:
    """Compare the L2 norm of every parameter's gradient, and which parameters have one."""
    norms = {
        key: float(np.linalg.norm(value.grad.numpy().astype("float64")))
        for key, value in model.named_parameters()
        if not value.stop_gradient and value.grad is not None
    }
    expected = dict(zip(golden["train/grad_names"].tolist(), golden["train/grad_norms"].tolist(), strict=True))
    assert {key for key, norm in norms.items() if norm > 0} >= {key for key, norm in expected.items() if norm > 1e-8}
    floor = 1e-4  # a bias in front of a batch norm has no gradient but rounding
    for key, norm in expected.items():
        np.testing.assert_allclose(norms.get(key, 0.0), norm, rtol=rtol, atol=floor, err_msg=f"gradient of {key}")


def assert_detections(golden: Any, out: Mapping[str, Any], *, flips: int) -> None:
    """All but `flips` of 100 rows agree in class, score to 1e-3, box to 0.5 px and mask area to 1 %.

    Rows are compared with the unused reference row nearest in score, so that two rows of equal score may change places.
    """
    boxes, masks = (out[key].numpy() for key in ("bbox", "mask"))
    expected = golden["eval/out/bbox"]
    assert out["bbox_num"].numpy().tolist() == golden["eval/out/bbox_num"].astype(int).tolist()
    assert boxes.shape == expected.shape
    assert masks.shape == tuple(golden["eval/out/mask_shape"])
    areas = masks.astype(bool).sum((1, 2))
    free = np.ones(len(expected), bool)
    differing = []
    for row, area in zip(boxes, areas, strict=True):
        same = (
            free
            & (expected[:, 0] == row[0])
            & (np.abs(expected[:, 1] - row[1]) <= 1e-3)
            & (np.abs(expected[:, 2:] - row[2:]) <= 0.5).all(1)
            & (np.abs(golden["eval/out/mask_area"] - area) <= np.maximum(0.01 * golden["eval/out/mask_area"], 1))
        )
        if same.any():
            free[np.flatnonzero(same)[0]] = False
        else:
            differing.append(row.tolist())
    assert len(differing) <= flips * len(expected) / 100, f"{len(differing)} rows differ: {differing[:3]}"


def _read(name: str) -> NDArray[np.float32]:
    bgr = cv2.imread(str(HERE / "data" / "images" / name))
    assert bgr is not None
    return np.ascontiguousarray((bgr[..., ::-1].astype("float32") * np.float32(1 / 255)).transpose(2, 0, 1))


def _xyxy(box: list[float]) -> list[float]:
    x, y, width, height = box
    return [x, y, x + width, y + height]


def _mask(annotation: dict[str, Any]) -> NDArray[np.uint8]:
    from pycocotools import mask as codec

    height, width = INPUT_SIZE
    parts = codec.frPyObjects(annotation["segmentation"], height, width)
    return codec.decode(codec.merge(parts))  # type: ignore[no-any-return]
