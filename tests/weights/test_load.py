"""Weights between files and models, and between Paddle's own functions and these."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import paddle
import pytest
from paddle import nn

from toolkit.errors import UserError
from toolkit.weights import load
from toolkit.weights.load import load_weights, read_checkpoint, read_weights, write_atomically


class Head(nn.Layer):
    """A backbone, a classification whose shapes depend on the classes, and an integer buffer."""

    def __init__(self, *, classes: int = 3, width: int = 4, name: str = "transformer") -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2D(3, width, 3), nn.BatchNorm2D(width), nn.Conv2D(width, width, 3))
        self.add_sublayer(name, nn.LayerDict({"embed": nn.Embedding(classes, 8), "score": nn.Linear(8, classes)}))
        self.register_buffer("steps", paddle.to_tensor([7], dtype="int64"))


def arrays(layer: nn.Layer) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in layer.state_dict().items()}


def equal(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(a[key].dtype == b[key].dtype and np.array_equal(a[key], b[key]) for key in a)


@pytest.fixture(scope="module")
def layer() -> Head:
    paddle.seed(1)
    return Head()


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_reads_what_paddle_saves(tmp_path, layer, protocol):
    path = tmp_path / "w.pdparams"
    paddle.save(layer.state_dict(), str(path), protocol=protocol)
    assert equal(read_weights(path), arrays(layer))


def test_reads_tensors_that_paddle_saves_in_structures(tmp_path):
    path = tmp_path / "w.pdparams"
    paddle.save({"a": paddle.ones([2]), "more": [paddle.zeros([1], dtype="int64"), {"rate": 0.5}]}, str(path))
    tree = read_checkpoint(path)
    assert np.array_equal(tree["a"], np.ones(2, "f4"))
    assert np.array_equal(tree["more"][0], np.zeros(1, "i8"))
    assert tree["more"][1] == {"rate": 0.5}


@pytest.mark.parametrize("protocol", [2, 4])
def test_reads_the_state_of_an_optimizer(tmp_path, layer, protocol):
    rate = paddle.optimizer.lr.StepDecay(0.1, 3)
    optimizer = paddle.optimizer.AdamW(parameters=layer.parameters(), learning_rate=rate)
    layer.backbone(paddle.ones([1, 3, 8, 8])).sum().backward()
    optimizer.step()
    path = tmp_path / "w.pdopt"
    paddle.save(optimizer.state_dict(), str(path), protocol=protocol)
    state = read_checkpoint(path)
    assert state["LR_Scheduler"] == {"last_epoch": 0, "last_lr": 0.1}
    assert all(np.array_equal(state[key], value) for key, value in optimizer.state_dict().items() if "moment" in key)
    with pytest.raises(UserError, match=r"w\.pdopt: LR_Scheduler: a dict, not a tensor"):
        read_weights(path)


def test_paddle_reads_what_is_written(tmp_path, layer):
    path = tmp_path / "w.pdparams"
    write_atomically(path, arrays(layer))
    assert equal(paddle.load(str(path), return_numpy=True), arrays(layer))
    other = Head()
    other.set_state_dict(paddle.load(str(path)))
    assert equal(arrays(other), arrays(layer))


def test_reads_large_tensors_in_slices(tmp_path, monkeypatch):
    from paddle.framework import io_utils

    whole = np.arange(12, dtype="f4")
    tree = {
        "w@@.0": whole[:5],
        "w@@.1": whole[5:],
        "b": whole[:1],
        "UnpackBigParamInfor@@": {"w": {"OriginShape": (3, 4), "slices": ["w@@.0", "w@@.1"]}},
    }
    path = tmp_path / "w.pdparams"
    path.write_bytes(pickle.dumps(tree, 2))
    found = read_weights(path)
    assert equal(found, {"b": whole[:1], "w": whole.reshape(3, 4)})
    assert equal(io_utils._pack_loaded_dict(dict(tree)), found)

    del tree["w@@.1"]
    path.write_bytes(pickle.dumps(tree, 2))
    with pytest.raises(UserError, match="slice of a large tensor"):
        read_weights(path)


def test_of_a_checkpoint_the_averaged_weights_are_read(tmp_path, layer):
    own = arrays(layer)
    average = {"backbone.0.weight": own["backbone.0.weight"] + 1}
    path = tmp_path / "last.ckpt"
    write_atomically(path, {"format": 1, "model": own, "optimizer": {}, "ema": {"steps": 3, "average": average}})
    assert equal(read_weights(path), {**own, **average})
    write_atomically(path, {"format": 1, "model": own, "optimizer": {}, "ema": None})
    assert equal(read_weights(path), own)


@pytest.mark.parametrize(
    ("tree", "problem"),
    [
        ([1], "a list, not a dict"),
        ({"a": 1}, "a: an int, not a tensor"),
        ({3: np.ones(1)}, "3: "),
        ({"a": {"b": np.ones(1)}}, "a: a dict, not a tensor"),
        ({"a": np.ones(1), "UnpackBigParamInfor@@": {"w": 3}}, "UnpackBigParamInfor@@: damaged"),
        ({"a": np.ones(1), "UnpackBigParamInfor@@": [3]}, "UnpackBigParamInfor@@: damaged"),
    ],
)
def test_what_is_no_weights_is_located(tmp_path, tree, problem):
    path = tmp_path / "w.pdparams"
    path.write_bytes(pickle.dumps(tree, 4))
    with pytest.raises(UserError, match=r"w\.pdparams: ") as caught:
        read_weights(path)
    assert problem in str(caught.value)


def test_a_checkpoint_survives(tmp_path):
    path = tmp_path / "deep" / "last.ckpt"
    tree = {
        "format": 1,
        "progress": {"epoch": 3, "best": {"mask": {"AP": 0.25}, "box": None}},
        "model": {"w": np.arange(6, dtype="f4").reshape(2, 3)},
        "order": [1, (2, "three"), True, -(2**80)],
    }
    write_atomically(path, tree)
    found = read_checkpoint(path)
    assert found.pop("model").keys() == {"w"}
    assert found == {key: value for key, value in tree.items() if key != "model"}


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "w.pdparams"
    write_atomically(path, {"a": 1})
    with pytest.raises(TypeError):
        write_atomically(path, {"a": 2, "b": object()})

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"w\.pdparams: cannot be written: No space left"):
        write_atomically(path, {"a": 3})
    assert read_checkpoint(path) == {"a": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["w.pdparams"]


def test_a_file_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    steps = []
    replace, fsync = Path.replace, os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (steps.append("sync"), fsync(handle))[1])
    monkeypatch.setattr(Path, "replace", lambda self, to: (steps.append("rename"), replace(self, to))[1])
    write_atomically(tmp_path / "w.pdparams", {"a": 1})
    assert steps == ["sync", "rename", "sync"]


def test_loads_everything_into_the_same_model(layer):
    other = Head()
    report = load_weights(other, arrays(layer))
    assert equal(arrays(other), arrays(layer))
    assert (report.missing, report.misshaped, report.unexpected) == ([], [], [])
    assert report.describe() == "loaded 12 of 12 tensors"


def test_other_classes_leave_the_classification_fresh(layer):
    other = Head(classes=80)
    before = arrays(other)
    report = load_weights(other, arrays(layer))
    fresh = {"transformer.embed.weight", "transformer.score.weight", "transformer.score.bias"}
    assert {misfit.name for misfit in report.misshaped} == fresh
    after = arrays(other)
    for name, value in arrays(layer).items():
        assert np.array_equal(after[name], before[name] if name in fresh else value)
    assert report.describe() == (
        "loaded 9 of 12 tensors; 3 of another shape kept fresh: transformer.embed.weight, transformer.score.weight, "
        "transformer.score.bias (3 classes there, 80 here)"
    )


def test_the_report_counts_what_is_missing_and_what_is_left_over(layer):
    weights = arrays(layer)
    del weights["steps"]
    weights["backbone.0.weight"] = np.zeros((4, 3, 5, 5), "f4")
    weights["backbone.0.bias"] = np.zeros((4, 1), "f4")
    weights["old.1"], weights["old.2"] = np.zeros(1), np.zeros(2)
    report = load_weights(Head(), weights)
    assert (report.missing, report.unexpected) == (["steps"], ["old.1", "old.2"])
    assert report.describe() == (
        "loaded 9 of 12 tensors; 2 of another shape kept fresh: backbone.0.weight, backbone.0.bias (the first is "
        "[4, 3, 5, 5] there, [4, 3, 3, 3] here); 1 not in the file kept fresh: steps; "
        "2 in the file not used: old.1, old.2"
    )


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_precisions_are_converted(layer, dtype):
    other = Head()
    weights = {name: value.astype(dtype) for name, value in arrays(layer).items()}
    load_weights(other, weights)
    for name, value in arrays(other).items():
        assert value.dtype == arrays(layer)[name].dtype
        np.testing.assert_array_equal(value, weights[name].astype(value.dtype))


def test_bfloat16_is_converted(tmp_path, layer):
    path = tmp_path / "w.pdparams"
    halves = {name: value.astype("bfloat16") for name, value in layer.state_dict().items() if name != "steps"}
    paddle.save(halves, str(path))
    other = Head()
    load_weights(other, read_weights(path))
    for name, value in halves.items():
        np.testing.assert_array_equal(arrays(other)[name], value.astype("float32").numpy())


def test_weights_of_another_model_are_refused_and_change_nothing(layer):
    other = Head(name="yolo_head", width=6)
    before = arrays(other)
    weights = {name: value for name, value in arrays(layer).items() if name != "steps"}
    with pytest.raises(UserError) as caught:
        load_weights(other, weights, origin="some.pdparams")
    assert str(caught.value) == (
        "some.pdparams: these are weights of another model (they look like Mask-RT-DETR): only 0 of the model's 12 "
        "tensors are in there in the right shape"
    )
    assert equal(arrays(other), before)
    with pytest.raises(UserError, match="another model: only 0 of"):
        load_weights(other, {})


def test_a_backbone_alone_is_enough(layer):
    weights = {name: value for name, value in arrays(layer).items() if name.startswith("backbone.")}
    report = load_weights(Head(), weights)
    assert len(report.matched) == 8 >= load.LEAST_SHARE * 12
    assert len(report.missing) == 4
