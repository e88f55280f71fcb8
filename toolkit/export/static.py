"""The graph and the description that PaddleX loads: inference.json, inference.pdiparams, inference.yml."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import paddle
from paddle import Tensor, nn
from paddle.static import InputSpec

from toolkit.data.preprocess import steps_of
from toolkit.places import home_for_libraries
from toolkit.quiet import captured
from toolkit.recipe import Data, Recipe, dump_yaml


@paddle.jit.not_to_static
def verbatim(function: Callable[..., Any], *inputs: Tensor) -> Any:
    """Trace `function` as it is.

    Networks have no branches on data, and Paddle's rewriting of the source knows less of the language than they use
    (`zip(strict=True)`).
    """
    return function(*inputs)


class Deployed(nn.Layer):
    """A model with masks at picture size, as PaddleX feeds and reads it.

    PaddleX sorts its inputs by name: `im_shape` `[B, 2]` (height, width after the resize), `image` `[B, 3, h, w]`,
    `scale_factor` `[B, 2]` (resized / original, y then x). It takes the outputs in order: rows `[N, 6]` (class, score,
    x1 y1 x2 y2 in pixels of the picture), how many of them each picture has `[B]`, and masks `[N, H, W]` int32, where
    H and W are those of the largest picture of the batch.

    Rows that are padding, or whose box has no area inside the picture, are left out: PaddleX drops the boxes of such
    rows and not their masks, so that all that follow would get a wrong mask.
    """

    def __init__(self, model: nn.Layer) -> None:
        super().__init__()
        self.model = model

    def forward(self, im_shape: Tensor, image: Tensor, scale_factor: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return verbatim(self._detect, im_shape, image, scale_factor)

    def _detect(self, im_shape: Tensor, image: Tensor, scale_factor: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        boxes, scores, labels, logits = self.model.network(image, im_shape)
        rows = scores.shape[1]
        # im_shape / scale_factor comes back as 426.99998; pictures have whole pixels.
        size = paddle.round(im_shape / scale_factor)
        boxes = boxes / scale_factor.flip(-1).tile([1, 2]).unsqueeze(1)
        low = boxes[..., :2].clip(min=0.0)
        high = paddle.minimum(boxes[..., 2:], size.flip(-1).unsqueeze(1))
        kept = (scores > 0) & (high > low).all(axis=-1)

        index = paddle.nonzero(kept.flatten()).squeeze(-1)
        bbox = paddle.concat([labels.astype("float32").unsqueeze(-1), scores.unsqueeze(-1), boxes], axis=-1)
        bbox = paddle.gather(bbox.flatten(0, 1), index)
        bbox_num = kept.astype("int32").sum(axis=1, dtype="int32")

        shape = paddle.shape(logits)
        logits = paddle.gather(logits.flatten(0, 1), index)
        height, width = size.unbind(1)
        if self.model.mask_frame == "box":
            # One cell more on each side than the box. For all rows, also where none is kept: oneDNN fails at sums with
            # an empty list.
            x1, y1, x2, y2 = boxes.flatten(0, 1).unbind(1)
            beside, above = (x2 - x1) / (shape[3] - 2), (y2 - y1) / (shape[2] - 2)
            down = _weights(shape[2], y1 - above, y2 + above, height.repeat_interleave(rows))
            across = _weights(shape[3], x1 - beside, x2 + beside, width.repeat_interleave(rows))
            down, across = (paddle.gather(weights, index) for weights in (down, across))
        else:
            # The whole network input, its padding included.
            bottom, right = (paddle.shape(image)[2:].astype("float32") * size / im_shape).unbind(1)
            down = _weights(shape[2], paddle.zeros_like(bottom), bottom, height)
            across = _weights(shape[3], paddle.zeros_like(right), right, width)
            down, across = (paddle.gather(weights, index // rows) for weights in (down, across))
        if self.model.mask_clip:
            # Columns first, rows then: oneDNN cannot take columns of an empty list.
            x1, y1, x2, y2 = (paddle.gather(side, index) for side in boxes.flatten(0, 1).unbind(1))
            down = down * _inside(y1, y2, down)
            across = across * _inside(x1, x2, across)
        mask = paddle.matmul(down, paddle.matmul(logits, across, transpose_y=True)) > 0
        return bbox, bbox_num, mask.astype("int32")


def _weights(cells: Tensor, begin: Tensor, end: Tensor, length: Tensor) -> Tensor:
    """`[N, T, cells]`: row i of mask n holds the weights by which pixel i of the picture sees the mask's cells.

    Bilinear with half-pixel centres, borders repeated. Resizing by matrix product, since oneDNN under Paddle's new IR
    refuses every interpolate. `begin`, `end`: `[N]`, what the cells cover, in pixels of the picture; `length`: `[N]`,
    how many pixels it has. T is the largest length; rows beyond a picture's own are 0.
    """
    index = paddle.arange(0, length.max().astype("int32"), 1, dtype="int32").astype("float32")
    pitch = (end - begin) / cells.astype("float32")
    centre = (index + 0.5 - begin.unsqueeze(-1)) / pitch.unsqueeze(-1) - 0.5
    centre = paddle.minimum(centre.clip(min=0.0), cells.astype("float32") - 1.0).unsqueeze(-1)
    columns = paddle.arange(0, cells, 1, dtype="int32").astype("float32")
    near = (1.0 - (centre - columns).abs()).clip(min=0.0)
    return near * (index < length.unsqueeze(-1)).astype("float32").unsqueeze(-1)


def _inside(low: Tensor, high: Tensor, weights: Tensor) -> Tensor:
    """`[N, T, 1]`: 1 where pixel i lies in `[low, high)`, else 0; T as in `weights` `[N, T, source]`."""
    index = paddle.arange(0, paddle.shape(weights)[1], 1, dtype="int32").astype("float32")
    inside = (index >= low.unsqueeze(-1)) & (index < high.unsqueeze(-1))
    return inside.astype("float32").unsqueeze(-1)


def save_program(model: nn.Layer, folder: Path, *, data: Data) -> None:
    """Write `inference.json` and `inference.pdiparams`.

    Raises RuntimeError if the program holds an interpolate: oneDNN, which PaddleX switches on, cannot run it.
    """
    height, width = (None, None) if data.keep_ratio else data.input_size
    spec = [
        InputSpec([None, 2], "float32", "im_shape"),
        InputSpec([None, 3, height, width], "float32", "image"),
        InputSpec([None, 2], "float32", "scale_factor"),
    ]
    trace(Deployed(model), spec, folder / "inference")
    found = set(re.findall(r"\w+_interp\b", (folder / "inference.json").read_text(encoding="utf-8")))
    if found:
        raise RuntimeError(f"the exported program holds {', '.join(sorted(found))}; use toolkit.nn.resize instead")


def trace(layer: nn.Layer, spec: Sequence[InputSpec], path: Path) -> None:
    """Put `layer` into eval mode and save it as a static program, `path`.json and `path`.pdiparams."""
    layer.eval()
    with captured(), home_for_libraries(".cache/paddle"):
        static = paddle.jit.to_static(layer, input_spec=list(spec), full_graph=True)
        # Pruning refuses inputs that the program does not look at.
        paddle.jit.save(static, str(path), skip_prune_program=True)


def write_description(folder: Path, *, recipe: Recipe, mask_frame: str, mask_clip: bool) -> None:
    """Write `inference.yml`. `FastGraph` is for `inference.onnx`; PaddleX looks neither at it nor at `tiling`."""
    description: dict[str, Any] = {
        "Global": {"model_name": recipe.model.name},
        "mode": "paddle",
        "metric": "COCO",
        "draw_threshold": recipe.predict.threshold,
        "Preprocess": steps_of(recipe.data),
        "label_list": list(recipe.classes),
        "FastGraph": {"mask_frame": mask_frame, "mask_clip": mask_clip},
    }
    if recipe.tiling:
        description["tiling"] = recipe.tiling.model_dump(mode="json")
    (folder / "inference.yml").write_text(dump_yaml(description), encoding="utf-8")
