"""Runs in an environment with paddledet 2.6.0: weights and outputs of its blocks, into an .npz.

python paddledet_side.py OUT.npz
"""

import json
import sys

import numpy as np
import paddle
from ppdet.modeling.backbones import ResNet
from ppdet.modeling.necks import FPN

RESNETS = {
    "r18vd": {"depth": 18, "variant": "d"},
    "r50": {"depth": 50, "variant": "b"},
    "r50vd": {"depth": 50, "variant": "d"},
    "x101vd": {"depth": 101, "variant": "d", "groups": 64, "base_width": 4},
}


def spread(layer: paddle.nn.Layer, rng: np.random.Generator) -> None:
    """Weights that no two layers share, and statistics that are not those of a fresh norm."""
    for name, value in layer.state_dict().items():
        drawn = rng.standard_normal(value.shape) * (0.5 / max(1, np.prod(value.shape[1:])) ** 0.5)
        value.set_value(
            (np.abs(drawn) + 0.5 if name.endswith(("_variance", "norm.weight")) else drawn).astype("float32")
        )


def main(out: str) -> None:
    paddle.set_device("cpu")
    rng = np.random.default_rng(0)
    image = rng.standard_normal((1, 3, 64, 96)).astype("float32")
    found = {"image": image}
    for name, options in RESNETS.items():
        backbone = ResNet(norm_type="bn", freeze_at=0, return_idx=[0, 1, 2, 3], num_stages=4, **options)
        neck = FPN(in_channels=[shape.channels for shape in backbone.out_shape], out_channel=32)
        for part, layer in (("backbone", backbone), ("neck", neck)):
            spread(layer, rng)
            layer.eval()
            found |= {f"{name}/{part}/{key}": value.numpy() for key, value in layer.state_dict().items()}
        with paddle.no_grad():
            maps = backbone({"image": paddle.to_tensor(image)})
            for part, outputs in (("backbone", maps), ("neck", neck(maps))):
                found |= {f"{name}/{part} output/{i}": output.numpy() for i, output in enumerate(outputs)}
    found["options"] = np.array(json.dumps(RESNETS))
    np.savez(out, **found)


main(sys.argv[1])
