"""Golden figures of PaddleDetection's models, and how far a model of ours is from them.

The figures were measured at 3 classes and an input of 256 x 320 on the two images in `data/`, on a CPU; those of
backbones and necks in float64, all others in float32. Their weights do not amplify rounding (`fill.py`), so they hold
on any processor.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import paddle
from numpy.typing import NDArray
from paddle import Tensor, nn

from tests.golden import fill
from toolkit.models import build_model
from toolkit.zoo import MODELS, find_model

HERE = Path(__file__).parent
INPUT_SIZE = (256, 320)
CLASSES = 3
MEASURED = [name for name in MODELS if (HERE / "figures" / f"{name}.npz").is_file()]

MAP, SCORE, BOX, AREA, GRADIENT, MEDIAN_GRADIENT = 5e-5, 1e-3, 0.1, 0.01, 1e-2, 1e-3
LOSS = (3e-4, 2e-3, 2e-3)
"""Before steps 0, 1 and 2."""
BITMAP_LOSS, BITMAP_GRADIENT = 5e-3, 3e-2
"""`loss_mask` of R-CNNs and gradients of their mask head: the reference draws mask targets from polygons, ours are cut
out of bitmaps."""

Deviations = dict[str, tuple[float, float]]
"""By figure: the deviation, and the tolerance."""


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


def built(name: str, **overrides: Any) -> nn.Layer:
    """The model `name` as the figures were measured: with their weights, without chance."""
    options: dict[str, Any] = {}
    if find_model(name).family.endswith("rcnn"):
        options = {"sampling": "first"}
    elif find_model(name).family == "mask_rtdetr":
        options = {"num_denoising": 0}
    model = build_model(name, CLASSES, INPUT_SIZE, **{**options, **overrides})
    load(model, figures(name))
    return model


def batch(name: str, *, train: bool) -> dict[str, Any]:
    """The reference batch of a model: both images with their objects, or the first image alone."""
    tree = json.loads((HERE / "data" / "instances.json").read_text())
    images = tree["images"] if train else tree["images"][:1]
    result: dict[str, Any] = {
        "image": paddle.to_tensor(np.stack([_read(name, image["file_name"]) for image in images])),
        "im_shape": paddle.to_tensor([[float(side) for side in INPUT_SIZE]] * len(images)),
        "scale_factor": paddle.ones([len(images), 2]),
    }
    if train:
        objects = [[a for a in tree["annotations"] if a["image_id"] == image["id"]] for image in images]
        result["gt_class"] = [paddle.to_tensor([a["category_id"] - 1 for a in group]) for group in objects]
        result["gt_bbox"] = [paddle.to_tensor([_xyxy(a["bbox"]) for a in group]) for group in objects]
        result["gt_mask"] = [paddle.to_tensor(np.stack([_mask(a) for a in group])) for group in objects]
    return result


@contextmanager
def fixed_draws() -> Iterator[None]:
    """Every `paddle.rand` gives `fill.sequence` of its shape."""
    rand = paddle.rand
    paddle.rand = lambda shape, *_, **__: paddle.to_tensor(fill.sequence([int(n) for n in shape]))
    try:
        yield
    finally:
        paddle.rand = rand


def inference(name: str) -> Deviations:
    """How far inference is from the figures: input, maps of backbone and neck, rows of detections."""
    golden, model = figures(name), built(name)
    model.eval()
    inputs = batch(name, train=False)
    with paddle.no_grad():
        levels = model.backbone(inputs["image"])
        maps = {"backbone": list(levels)}
        if model.neck is not None:
            maps["neck"] = list(model.neck(levels))
        out = model(inputs)
    off = {"input": (map_deviation(golden, "eval/input/image/0", inputs["image"]), 0.0)}
    for part, tensors in maps.items():
        count = sum(key.startswith(f"eval/{part}/") and key.endswith("/sample") for key in golden.files)
        if len(tensors) > count:  # The reference hands Mask-RT-DETR's finest map on apart from the others.
            off["finest map"] = (map_deviation(golden, "eval/backbone_finest/0", tensors.pop(0)), MAP)
        assert len(tensors) == count
        off[part] = (max(map_deviation(golden, f"eval/{part}/{i}", x) for i, x in enumerate(tensors)), MAP)
    return {**off, **detections(golden, out)}


def training(name: str, *, prefix: str = "train", steps: int = 3, **overrides: Any) -> Deviations:
    """How far the losses before each step are from the figures, and the gradients at step 0.

    Args:
        prefix: `train`, or `train_dn` for the figures with denoising.
    """
    golden, model = figures(name), built(name, **overrides)
    model.train()
    inputs = batch(name, train=True)
    trained = [parameter for parameter in model.parameters() if not parameter.stop_gradient]
    optimizer = paddle.optimizer.SGD(float(golden["rule/lr"]), parameters=trained)
    off: Deviations = {}
    with fixed_draws():
        for step in range(steps):
            losses = model(inputs)
            off.update(loss_deviations(name, golden, f"{prefix}/step{step}/", losses, LOSS[step]))
            losses["loss"].backward()
            if step == 0:
                off.update(gradient_deviations(name, golden, prefix, model))
            optimizer.step()
            optimizer.clear_grad()
    return off


def over(deviations: Deviations) -> Deviations:
    """Those beyond their tolerance."""
    return {name: (value, limit) for name, (value, limit) in deviations.items() if not value <= limit}


def map_deviation(golden: Any, key: str, tensor: Tensor) -> float:
    """Largest difference of any stored value of a tensor, relative to the tensor's largest value."""
    actual = fill.digest(tensor.numpy())
    assert tuple(actual["shape"]) == tuple(golden[f"{key}/shape"]), key
    largest = float(golden[f"{key}/absmax"])
    parts = ("sample", "absmax") if "input" in key else ("sample", "absmax", "mean", "std")
    return (
        max(float(np.abs(actual[part] - golden[f"{key}/{part}"].astype("float64")).max()) for part in parts) / largest
    )


def detections(golden: Any, out: Mapping[str, Tensor]) -> Deviations:
    """Rows that have no equal in the figures, and the worst deviations of those that have.

    Rows are compared as sets: two of nearly equal score may change places.
    """
    boxes, masks = (out[key].numpy() for key in ("bbox", "mask"))
    rows, expected = _described_rows(golden), np.c_[boxes, moments(masks)]
    if rows.shape[1] == 5:  # SOLOv2: class, score and moments of the mask
        expected = expected[:, [0, 1, 6, 7, 8]]
    assert len(rows) == len(expected)
    assert masks.shape == tuple(golden["eval/out/mask_shape" if rows.shape[1] > 5 else "eval/out/segm_shape"])
    free, missing, worst = np.ones(len(expected), bool), 0, np.zeros(3)
    for row in rows:
        difference = np.abs(expected - row)
        score, box, area = difference[:, 1], difference[:, 2:-3].max(axis=1, initial=0.0), difference[:, -3]
        same = free & (difference[:, 0] == 0) & (score <= SCORE) & (box <= BOX) & (area <= max(AREA * row[-3], 3))
        if not same.any():
            missing += 1
            continue
        nearest = np.where(same, score + box + area, np.inf).argmin()
        free[nearest] = False
        worst = np.maximum(worst, [score[nearest], box[nearest], area[nearest] / max(row[-3], 1)])
    limits = zip(("score", "box", "mask area"), worst.tolist(), (SCORE, BOX, np.inf), strict=True)
    return {"rows missing": (float(missing), 0.0), **{key: (value, limit) for key, value, limit in limits}}


def moments(masks: NDArray[np.uint8]) -> NDArray[np.float64]:
    """`[N, 3]`: of each mask the number of set pixels and the sums of their rows and columns."""
    masks = masks.astype("float64")
    rows, columns = np.arange(masks.shape[1]), np.arange(masks.shape[2])
    return np.stack([masks.sum((1, 2)), masks.sum(2) @ rows, masks.sum(1) @ columns], axis=1)


def loss_deviations(name: str, golden: Any, prefix: str, losses: Mapping[str, Tensor], tolerance: float) -> Deviations:
    """Relative difference of each loss; their names must be the reference's."""
    names = {key.rpartition("/")[2] for key in golden.files if key.startswith(prefix)}
    assert set(losses) == names
    off = {}
    for part in names:
        expected = float(golden[prefix + part])
        rough = _is_rcnn(name) and part in ("loss_mask", "loss")
        limit = BITMAP_LOSS if rough else tolerance
        off[prefix + part] = (abs(float(losses[part]) - expected) / (abs(expected) or 1.0), limit)
    return off


def gradient_deviations(name: str, golden: Any, prefix: str, model: nn.Layer) -> Deviations:
    """Relative difference of the norm of each parameter's gradient, and their median.

    Norms below 1e-5 of the largest count as that: a bias in front of a batch norm has no gradient but rounding.
    """
    expected = dict(zip(golden[f"{prefix}/grad_names"].tolist(), golden[f"{prefix}/grad_norms"].tolist(), strict=True))
    norms = {
        key: float(np.linalg.norm(value.grad.numpy().astype("float64")))
        for key, value in model.named_parameters()
        if not value.stop_gradient and value.grad is not None
    }
    floor = 1e-5 * max(expected.values())
    off: Deviations = {}
    for key in {*norms, *expected}:
        want = expected.get(key, 0.0)
        of_masks = _is_rcnn(name) and key.startswith("mask_head.")
        off[f"gradient of {key}"] = (
            abs(norms.get(key, 0.0) - want) / max(want, floor),
            BITMAP_GRADIENT if of_masks else GRADIENT,
        )
    median = float(np.median([value for value, _ in off.values()]))
    return {**off, "median gradient": (median, MEDIAN_GRADIENT)}


def _described_rows(golden: Any) -> NDArray[np.float64]:
    name = "mask" if "eval/out/bbox" in golden.files else "segm"
    shape = [golden[f"eval/out/{name}_{part}"] for part in ("area", "sumy", "sumx")]
    if name == "mask":
        return np.c_[golden["eval/out/bbox"], np.stack(shape, axis=1)].astype("float64")
    return np.stack([golden["eval/out/cate_label"], golden["eval/out/cate_score"], *shape], axis=1).astype("float64")


def _is_rcnn(name: str) -> bool:
    return find_model(name).family.endswith("rcnn")


def _read(model: str, name: str) -> NDArray[np.float32]:
    bgr = cv2.imread(str(HERE / "data" / "images" / name))
    assert bgr is not None
    # Each step is rounded to float32 once: then the input is bit for bit the reference's.
    image = bgr[..., ::-1].astype("float32") * np.float32(1 / 255)
    if _is_rcnn(model) or model == "SOLOv2":
        image -= np.array([0.485, 0.456, 0.406])
        image /= np.array([0.229, 0.224, 0.225])
    return np.ascontiguousarray(image.transpose(2, 0, 1))


def _xyxy(box: Sequence[float]) -> list[float]:
    x, y, width, height = box
    return [x, y, x + width, y + height]


def _mask(annotation: dict[str, Any]) -> NDArray[np.uint8]:
    from pycocotools import mask as codec

    height, width = INPUT_SIZE
    parts = codec.frPyObjects(annotation["segmentation"], height, width)
    return codec.decode(codec.merge(parts))  # type: ignore[no-any-return]
