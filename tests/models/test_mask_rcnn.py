from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

from tests.models import rcnn
from tests.models.rcnn import ODD_PICTURES, PICTURES, SIDE, drawn
from tests.pictures import write_dataset
from toolkit.data.coco import find_dataset
from toolkit.data.loader import TrainBatches
from toolkit.errors import UserError
from toolkit.models import build_model
from toolkit.models.mask_rcnn import TINY, MaskRCNN
from toolkit.nn.sampling import Targets
from toolkit.recipe import load_recipe
from toolkit.train.batch import to_tensors

FPN, C4 = "MaskRCNN-ResNet50-FPN", "MaskRCNN-ResNet50"
LOSSES = {"loss_rpn_cls", "loss_rpn_reg", "loss_bbox_cls", "loss_bbox_reg", "loss_mask"}

both = pytest.mark.parametrize("name", [FPN, C4])


# The others take 20 seconds (ResNeXt) to five minutes (C4, whose res5 runs on 1000 regions).
def tiny(name: str, **overrides: Any) -> MaskRCNN:
    paddle.seed(0)
    return build_model(name, 2, **{**TINY, "freeze": False, **overrides})


@pytest.fixture(scope="module", params=[FPN, C4])
def trained(request: Any) -> MaskRCNN:
    # Without a pyramid the small rectangle is seen by one or two cells.
    return rcnn.train(tiny(request.param), drawn(*PICTURES), steps=40 if request.param == FPN else 80)


@both
@pytest.mark.parametrize("freeze", [True, False])
def test_every_trainable_parameter_learns(name: str, freeze: bool) -> None:
    model = tiny(name, freeze=freeze)
    rcnn.assert_every_trainable_parameter_learns(model, drawn(*PICTURES), LOSSES)
    assert model.backbone.conv1.conv1.conv.weight.stop_gradient == freeze
    assert model.backbone.res4.res4a.branch2a.norm.weight.stop_gradient == freeze


@both
@pytest.mark.parametrize("pictures", ODD_PICTURES.values(), ids=ODD_PICTURES.keys())
def test_odd_pictures_train(name: str, pictures: tuple[list[rcnn.Shape], ...]) -> None:
    rcnn.assert_trains(tiny(name), drawn(*pictures))


@both
def test_pictures_without_objects_teach_no_box_and_no_mask(name: str) -> None:
    model = tiny(name)
    model.train()
    losses = model(drawn([], []))
    assert [float(losses[key]) for key in ("loss_rpn_reg", "loss_bbox_reg", "loss_mask")] == [0, 0, 0]
    assert float(losses["loss_rpn_cls"]) > 0
    assert float(losses["loss_bbox_cls"]) > 0


@both
def test_pictures_of_several_sizes_train_in_one_batch(name: str, tmp_path: Path) -> None:
    split = find_dataset(write_dataset(tmp_path / "data", train=3, val=1, side=100)).train
    settings = {"data.input_size": [90, 128], "data.train_sizes": [70, 90], "data.workers": 0, "train.batch_size": 3}
    batches = TrainBatches(split, load_recipe(name, settings))
    for number in range(2):
        ([batch],) = batches.epoch(number)
        assert len({tuple(size) for size in batch["im_shape"].tolist()}) == 3
        assert all(side % 32 == 0 for side in batch["image"].shape[2:])
        rcnn.assert_trains(tiny(name), to_tensors(batch))


@pytest.mark.parametrize("how", ["random", "first"])
def test_every_picture_learns_its_masks_from_its_own_features(how: str) -> None:
    model = tiny(C4, sampling=how)
    model.train()
    seen: list[tuple[paddle.Tensor, paddle.Tensor]] = []
    mask_loss = model.mask_head.loss

    def loss(levels: Any, targets: Targets, masks: Any, *, shared: tuple[paddle.Tensor, paddle.Tensor]) -> Any:
        seen.append(shared)
        return mask_loss(levels, targets, masks, shared=shared)

    model.mask_head.loss = loss
    model(drawn(*PICTURES))
    [(features, index)] = seen
    second = index >= model.regions
    assert 0 < int(second.sum()) < len(index)
    count = min(int(second.sum()), int((~second).sum()))
    # The reference, which `first` reproduces, mistakes the first picture's features for those of all.
    same = (features[~second][:count] == features[second][:count]).all()
    assert bool(same) == (how == "first")


def test_a_batch_equals_its_pictures_one_by_one(trained: MaskRCNN) -> None:
    batch = drawn(*PICTURES)
    with paddle.no_grad():
        together = [output.numpy() for output in trained.network(batch["image"], batch["im_shape"])]
        for i in range(2):
            alone = [
                output.numpy() for output in trained.network(batch["image"][i : i + 1], batch["im_shape"][i : i + 1])
            ]
            shown = alone[1][0] > 0.3
            assert shown.sum() >= len(PICTURES[i])
            for one, both in zip(alone, together, strict=True):
                np.testing.assert_allclose(one[0][shown], both[i][shown], atol=1e-3)


def test_network_keeps_its_contract(trained: MaskRCNN) -> None:
    batch = drawn(*PICTURES)
    with paddle.no_grad():
        boxes, scores, labels, masks = trained.network(batch["image"], paddle.to_tensor([[80.0, SIDE]] * 2))
        whole = trained.network(batch["image"])
    side = 16 if trained.neck is None else 30
    assert boxes.shape == [2, 100, 4]
    assert labels.dtype == paddle.int64
    assert masks.shape == [2, 100, side, side]
    assert (scores[:, 0] > 0.5).all()
    assert (scores[:, :-1] >= scores[:, 1:]).all()
    assert float(boxes.min()) >= 0
    assert float(boxes[..., [1, 3]].max()) <= 80 < float(whole[0][..., [1, 3]].max())
    assert (boxes[..., 2:] >= boxes[..., :2]).all()
    border = paddle.ones([side, side], "bool")
    border[1:-1, 1:-1] = False
    used = scores > 0
    assert (masks[used][:, border] == -0.5).all()
    assert (masks.abs() <= 0.5).all()
    assert (boxes[~used] == 0).all()


def test_what_was_drawn_is_found(trained: MaskRCNN) -> None:
    rcnn.assert_finds_what_was_drawn(trained)


def test_results_have_the_size_of_the_picture_without_its_padding(trained: MaskRCNN) -> None:
    batch = drawn(PICTURES[0])
    batch["im_shape"] = paddle.to_tensor([[90.0, 80.0]])
    batch["scale_factor"] = paddle.to_tensor([[0.5, 0.5]])
    with paddle.no_grad():
        out = trained(batch)
    assert out["mask"].shape[1:] == [180, 160]
    assert out["bbox_num"].tolist() == [len(out["bbox"])] == [len(out["mask"])] != [0]
    assert float(out["bbox"][:, 4].max()) <= 160
    assert float(out["bbox"][:, 5].max()) <= 180
    assert float(out["bbox"][:, 4].max()) > 80


@both
def test_a_picture_without_anything_has_no_instances(name: str) -> None:
    model = tiny(name)
    # Background everywhere.
    model.bbox_head.bbox_score.bias.set_value(paddle.to_tensor([0.0, 0.0, 50.0]))
    model.eval()
    with paddle.no_grad():
        out = model(drawn([], []))
    assert out["bbox"].shape == [0, 6]
    assert out["bbox_num"].tolist() == [0, 0]
    assert out["mask"].shape == [0, SIDE, SIDE]


def test_a_size_that_the_pyramid_cannot_halve_is_refused() -> None:
    with pytest.raises(UserError, match="multiples of 32"):
        build_model(FPN, 2, (250, 320))


@pytest.mark.slow
def test_eight_pictures_are_learnt_by_heart(tmp_path: Path) -> None:
    assert rcnn.mask_ap_by_heart(tiny(FPN), FPN, tmp_path, epochs=60, lr=1e-3) > 0.8


@pytest.mark.slow
def test_eight_pictures_are_learnt_by_heart_without_a_pyramid(tmp_path: Path) -> None:
    # At stride 16 the objects are three cells wide, and masks have 14 pixels a side: it takes more channels and steps.
    assert rcnn.mask_ap_by_heart(tiny(C4, width=16), C4, tmp_path, epochs=90, lr=2e-3) > 0.8
