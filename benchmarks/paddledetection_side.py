"""Run by PADDLEDET_PYTHON: times the training step of PaddleDetection's Mask-RT-DETR on the batch of train_step.py.

python paddledetection_side.py CHECKOUT MODEL DENOISING REPETITIONS
"""

import sys
from pathlib import Path

import paddle
from train_step import batch, medians, step_of

checkout, name, denoising, repetitions = sys.argv[1:]
sys.path.insert(0, checkout)
from ppdet.core.workspace import create, load_config, merge_config  # noqa: E402  # of the checkout

HEIGHT, WIDTH = 256, 320

size = name.rpartition("-")[2].lower()
config = load_config(str(Path(checkout, f"configs/mask_rtdetr/mask_rtdetr_hgnetv2_{size}_6x_coco.yml")))
merge_config({"num_classes": 3, "eval_size": [HEIGHT, WIDTH]})
config.MaskRTDETR["num_denoising"] = int(denoising)
paddle.seed(0)
model = create(config.architecture)
model.train()

data = batch()
corners = [boxes / paddle.to_tensor([WIDTH, HEIGHT, WIDTH, HEIGHT], "float32") for boxes in data.pop("gt_bbox")]
# Its loss takes boxes as centre and size, relative to the picture.
data["gt_bbox"] = [
    paddle.concat([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], axis=1) for boxes in corners
]
data["gt_segm"] = [masks.astype("float32") for masks in data.pop("gt_mask")]
data["gt_class"] = [classes.reshape([-1, 1]).astype("int32") for classes in data["gt_class"]]
data["is_crowd"] = [paddle.zeros(classes.shape, "int32") for classes in data["gt_class"]]
data["pad_mask"] = paddle.ones([len(corners), HEIGHT, WIDTH])

print(*medians(step_of(model, data), int(repetitions)))
