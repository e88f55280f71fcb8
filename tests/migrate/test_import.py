"""Configs of PaddleDetection and PaddleX, made up here, become recipes; nothing is dropped without a word."""

from __future__ import annotations

import textwrap
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from toolkit.data.transforms import Augmentation
from toolkit.errors import UserError
from toolkit.migrate.chain import flat, read_chain
from toolkit.migrate.recipe import Imported, import_config
from toolkit.recipe import load_recipe

FILES = {
    "data.yml": """
        num_classes: 3
        TrainDataset:
          {name: COCODataSet, dataset_dir: my/set, image_dir: train17/, anno_path: annotations/instances_train17.json}
        EvalDataset:
          {name: COCODataSet, dataset_dir: my/set, image_dir: val17, anno_path: annotations/instances_val17.json}
        """,
    "reader.yml": """
        worker_num: 5
        TrainReader:
          sample_transforms:
          - Decode: {}
          - RandomFlip: {prob: 0.25}
          - RandomResize: {target_size: [[480, 900], [512, 900]], interp: 1, keep_ratio: true}
          - NormalizeImage: {is_scale: true, mean: [0.1, 0.2, 0.3], std: [0.4, 0.5, 0.6]}
          - Permute: {}
          batch_size: 3
          shuffle: true
        EvalReader:
          sample_transforms:
          - Decode: {}
          - Resize: {interp: 1, target_size: [512, 900], keep_ratio: true}
          - NormalizeImage: {is_scale: true, mean: [0.1, 0.2, 0.3], std: [0.4, 0.5, 0.6]}
          - Permute: {}
          batch_size: 2
        """,
    "optimizer.yml": """
        epoch: 30
        LearningRate:
          base_lr: 0.02
          schedulers:
          - !PiecewiseDecay
            gamma: 0.2
            milestones: [20, 28]
          - !LinearWarmup
            start_factor: 0.1
            steps: 700
        OptimizerBuilder:
          optimizer: {type: Momentum, momentum: 0.8}
          regularizer: {type: L2, factor: 0.0003}
        """,
    "model.yml": """
        _BASE_: [data.yml, deeper/optimizer.yml, reader.yml]
        architecture: MaskRCNN
        MaskRCNN: {backbone: ResNet, neck: FPN}
        ResNet: {depth: 101, norm_type: bn, lr_mult_list: [0.1, 0.1, 0.2, 0.2]}
        RPNHead:
          train_proposal: {pre_nms_top_n: 2000}
        log_iter: 10
        """,
}


KEYS = {
    *(
        "architecture",
        "MaskRCNN",
        "MaskRCNN.backbone",
        "ResNet",
        "ResNet.depth",
        "ResNet.lr_mult_list",
        "use_ema",
        "epoch",
    ),
    *("LearningRate", "LearningRate.base_lr", "LearningRate.schedulers", "OptimizerBuilder.regularizer", "ema_decay"),
    *("OptimizerBuilder.optimizer", "OptimizerBuilder.optimizer.type", "TrainReader", "TrainReader.batch_size"),
    *("TrainReader.sample_transforms", "TrainReader.batch_transforms", "EvalReader.sample_transforms", "worker_num"),
    *("TrainDataset", "TrainDataset.dataset_dir", "TrainDataset.anno_path", "RPNHead", "pretrain_weights", "norm_type"),
}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "deeper").mkdir()
    for name, text in FILES.items():
        place = "deeper" if name == "optimizer.yml" else "."
        (tmp_path / place / name).write_text(textwrap.dedent(text))
    return tmp_path / "model.yml"


def written(config: Path, text: str) -> Path:
    path = config.with_name("mine.yml")
    path.write_text(textwrap.dedent(text))
    return path


def imported(path: Path, **options: Any) -> Imported:
    return import_config(path, path.with_suffix(".recipe.yaml"), **options)


def test_a_chain_is_merged_and_each_value_has_its_place(config: Path) -> None:
    path = written(
        config,
        """
        _BASE_: model.yml
        epoch: 3

        ResNet: {depth: 50}
        """,
    )
    values = dict(flat(read_chain(path)))
    assert (values["epoch"].value, values["epoch"].place) == (3, f"{path}:3")
    assert (values["ResNet.depth"].value, values["ResNet.norm_type"].value) == (50, "bn")
    schedulers = values["LearningRate.schedulers"]
    assert schedulers.value[0] == {"name": "PiecewiseDecay", "gamma": 0.2, "milestones": [20, 28]}
    assert schedulers.places[1] == f"{config.parent / 'deeper' / 'optimizer.yml'}:9"


def test_a_config_becomes_a_recipe(config: Path) -> None:
    result = imported(config)
    recipe = load_recipe(config.with_suffix(".recipe.yaml"))
    assert recipe == result.recipe
    assert result.lost == []
    assert recipe.model.name == "MaskRCNN-ResNet101-FPN"
    data, train = recipe.data, recipe.train
    assert (data.path, data.train_json, data.images, data.workers) == ("my/set", None, None, 5)
    assert (data.input_size, data.keep_ratio, data.interpolation) == ((512, 900), True, "linear")
    assert (data.mean, data.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert (data.train_sizes, data.train_transforms) == ([480, 512], [{"HorizontalFlip": {"p": 0.25}}])
    assert (train.epochs, train.batch_size, train.lr, train.lr_batch_size) == (30, 3, 0.02, 24)
    schedule = train.schedule
    assert (schedule.name, schedule.gamma, schedule.milestones) == ("step", 0.2, [20, 28])
    assert (schedule.warmup_steps, schedule.warmup_start) == (700, 0.1)
    assert (train.optimizer.name, train.optimizer.momentum, train.optimizer.weight_decay) == ("Momentum", 0.8, 0.0003)
    assert train.lr_multipliers == {
        "backbone.res2": 0.1,
        "backbone.res3": 0.1,
        "backbone.res4": 0.2,
        "backbone.res5": 0.2,
    }
    assert (train.ema, train.clip_norm, recipe.evaluate.batch_size) == (None, None, 2)
    assert imported(written(config, "_BASE_: [model.yml]"), devices=2).recipe.train.lr_batch_size == 6


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("ResNet: {dcn_v2_stages: [1, 2]}", 2, "ResNet.dcn_v2_stages: [1, 2]"),
        (
            "RPNHead:\n  train_proposal: {pre_nms_top_n: 99}",
            3,
            "RPNHead.train_proposal.pre_nms_top_n: 99 (is 2000 here)",
        ),
        ("slim: Distill", 2, "slim: Distill"),
        ("use_ema: true\nema_decay_type: normal", 3, "ema_decay_type: normal (there are exponential and threshold)"),
        ("LearningRate:\n  schedulers:\n  - !ExpDecay {gamma: 0.9}", 4, "LearningRate.schedulers: ExpDecay"),
        (
            "LearningRate:\n  schedulers:\n  - !PiecewiseDecay {values: [1]}",
            4,
            "LearningRate.schedulers: PiecewiseDecay.values: [1]",
        ),
        ("TrainReader:\n  sample_transforms:\n  - Mosaic: {prob: 0.3}", 4, "TrainReader: Mosaic.prob: 0.3"),
        ("TrainReader:\n  sample_transforms:\n  - AutoAugment: {}", 4, "TrainReader: AutoAugment"),
        ("TrainReader:\n  batch_transforms:\n  - RandomFlip: {axis: 1}", 4, "TrainReader: RandomFlip.axis: 1"),
        ("TrainReader:\n  mixup_epoch: 3", 3, "TrainReader.mixup_epoch: 3"),
        ("TrainDataset: {image_dir: elsewhere}", 2, "TrainDataset.image_dir: elsewhere (pictures of both parts"),
        (
            "OptimizerBuilder:\n  optimizer: {type: Adam}",
            3,
            "OptimizerBuilder.optimizer.type: Adam (the model's own is",
        ),
        (
            "pretrain_weights: http://x/ResNet.pdparams",
            2,
            "pretrain_weights: http://x/ResNet.pdparams (training starts",
        ),
    ],
)
def test_what_has_no_counterpart_is_listed_with_its_place(config: Path, text: str, line: int, said: str) -> None:
    path = written(config, f"_BASE_: [model.yml]\n{text}\n")
    result = imported(path)
    [found] = [entry for entry in result.lost if "EvalDataset" not in entry]
    assert found.startswith(f"{path}:{line}: {said}")
    head = path.with_suffix(".recipe.yaml").read_text().split("\nmodel:")[0]
    assert f"#   {found}" in head


def test_the_other_families(config: Path) -> None:
    def model(text: str) -> Any:
        path = written(config, text)
        path.with_suffix(".recipe.yaml").unlink(missing_ok=True)
        return imported(path).recipe

    assert model("architecture: MaskRCNN").model.name == "MaskRCNN-ResNet50"
    ssld = "architecture: MaskRCNN\nMaskRCNN: {neck: FPN}\nResNet: {variant: d}\npretrain_weights: http://x/R50_ssld.pdparams"
    assert model(ssld).model.name == "MaskRCNN-ResNet50-vd-SSLDv2-FPN"
    cascade = "architecture: CascadeRCNN\nCascadeRCNN: {neck: FPN, bbox_head: CascadeHead}"
    assert model(cascade).model.name == "Cascade-MaskRCNN-ResNet50-FPN"
    assert model("architecture: SOLOv2\nSOLOv2: {neck: FPN}").model.name == "SOLOv2"
    yoloe = "architecture: PPYOLOE\nwith_mask: true\nwidth_mult: {}\ndepth_mult: {}"
    small, large = model(yoloe.format(0.5, 0.33)), model(yoloe.format(1.0, 1.0))
    assert (small.model.options, small.train.pretrained) == ({}, "official")
    assert (large.model.options, large.train.pretrained) == ({"width": 1.0, "depth": 1.0}, "none")
    detr = model(
        """
        architecture: DETR
        with_mask: true
        use_ema: true
        ema_decay: 0.999
        ema_decay_type: exponential
        ResNet: {depth: 50}
        PPHGNetV2: {arch: X, lr_mult_list: [0., 0.1, 0.1, 0.1, 0.2]}
        OptimizerBuilder: {clip_grad_by_norm: 0.1, regularizer: false, optimizer: {type: AdamW, weight_decay: 0.0001}}
        LearningRate:
          base_lr: 1e-4
          schedulers: [!PiecewiseDecay {gamma: 1.0, milestones: [100], use_warmup: false}, !LinearWarmup {steps: 9}]
        """
    )
    assert detr.model.name == "Mask-RT-DETR-X"
    assert (detr.train.ema.decay, detr.train.ema.ramp, detr.train.clip_norm) == (0.999, "exponential", 0.1)
    assert (detr.train.schedule.name, detr.train.schedule.warmup_steps) == ("constant", 0)
    assert detr.train.lr_multipliers["backbone.stages.3."] == 0.2
    cosine = """
        architecture: SOLOv2
        SOLOv2: {neck: FPN}
        epoch: 80
        LearningRate: {schedulers: [{name: CosineDecay, max_epochs: 96}]}
        """
    assert (model(cosine).train.schedule.name, model(cosine).train.schedule.stretch) == ("cosine", 1.2)


def test_augmentation_with_a_counterpart(config: Path) -> None:
    path = written(
        config,
        """
        _BASE_: [model.yml]
        TrainReader:
          sample_transforms:
          - RandomDistort: {hue: [-36, 18, 0.5], brightness: [0.8, 1.2, 0.5], prob: 0.6}
          - RandomExpand: {ratio: 3, prob: 0.3, fill_value: [1, 2, 3]}
          - RandomCrop: {scaling: [0.5, 1.0], num_attempts: 7, prob: 0.7}
        """,
    )
    transforms = imported(path).recipe.data.train_transforms
    Augmentation(transforms)
    assert transforms == [
        {
            "ColorJitter": {
                "brightness": [0.8, 1.2],
                "contrast": [0.5, 1.5],
                "saturation": [0.5, 1.5],
                "hue": [-0.1, 0.05],
                "p": 0.6,
            }
        },
        {"Expand": {"ratio": [1.0, 3.0], "fill": [1.0, 2.0, 3.0], "p": 0.3}},
        {
            "InstanceCrop": {
                "scaling": [0.5, 1.0],
                "aspect": [0.5, 2.0],
                "overlaps": [0.0, 0.1, 0.3, 0.5, 0.7, 0.9],
                "attempts": 7,
                "p": 0.7,
            }
        },
    ]


def test_annotations_of_another_layout(config: Path) -> None:
    path = written(
        config,
        """
        _BASE_: [model.yml]
        TrainDataset: {image_dir: pictures, anno_path: one.json}
        EvalDataset: {image_dir: pictures, anno_path: two.json}
        """,
    )
    data = imported(path).recipe.data
    assert (data.path, data.images) == ("my/set", "my/set/pictures")
    assert (data.train_json, data.val_json) == ("my/set/one.json", "my/set/two.json")


def test_a_module_config_of_paddlex(tmp_path: Path) -> None:
    tree = {
        "Global": {"model": "SOLOv2", "mode": "train", "dataset_dir": "my set", "device": "gpu:0,1", "output": "out"},
        "CheckDataset": {"convert": {"enable": False}},
        "Train": {
            "num_classes": 2,
            "epochs_iters": 24,
            "batch_size": 4,
            "learning_rate": 0.02,
            "warmup_steps": 50,
            "eval_interval": 2,
            "pretrain_weight_path": None,
            "resume_path": None,
            "dy2st": True,
        },
        "Predict": {"model_dir": "x"},
    }
    path = tmp_path / "SOLOv2.yaml"
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    result = imported(path)
    train = result.recipe.train
    assert (result.recipe.model.name, result.recipe.data.path) == ("SOLOv2", "my set")
    assert (train.epochs, train.batch_size, train.lr, train.lr_batch_size) == (24, 4, 0.02, 8)
    assert (train.schedule.warmup_steps, train.eval_every) == (50, 2)
    assert train.schedule.milestones == [16, 22], (
        "in proportion to the epochs, as PaddleX leaves them to its own config"
    )
    assert [line.partition(": ")[2] for line in result.lost] == ["Train.dy2st: True"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1", "neither PaddleDetection's"),
        ("- 1", "a config is a mapping"),
        ("a: [", "not a readable YAML"),
        ("_BASE_: [mine.yml]", "is based on itself"),
        ("_BASE_: [nowhere.yml]", "no such config, which"),
        ("_BASE_: {a: 1}", "must be a list of files"),
        ("architecture: YOLOv3", "architecture YOLOv3: there is no such model here"),
        ("_BASE_: [model.yml]\nMaskRCNN: {backbone: SwinTransformer}", "only models with ResNet"),
        ("_BASE_: [model.yml]\nResNet: {depth: 152}", "depth 152, variant b"),
        ("architecture: PPYOLOE", "without masks"),
        ("_BASE_: [model.yml]\nepoch: many", r"mine\.yml:2: epoch: must be a number \(is: 'many'\)"),
        ("Global: {model: SOLO}", "did you mean SOLOv2"),
    ],
)
def test_what_cannot_be_imported(config: Path, text: str, said: str) -> None:
    path = written(config, text)
    with pytest.raises(UserError, match=said):
        imported(path)
    assert not path.with_suffix(".recipe.yaml").exists()


WEIRD = st.sampled_from([None, True, -1, 0.5, "x", [], [1], [[1, 2]], [None], {}, {"a": [1]}, [{"Resize": [1]}]])


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=st.sampled_from(sorted(KEYS)), value=WEIRD)
def test_values_of_any_kind_end_in_a_recipe_or_a_line(config: Path, key: str, value: Any) -> None:
    *parents, leaf = key.split(".")
    tree: Any = {leaf: value}
    for parent in reversed(parents):
        tree = {parent: tree}
    path = written(config, yaml.safe_dump({"_BASE_": ["model.yml"], **tree}))
    path.with_suffix(".recipe.yaml").unlink(missing_ok=True)
    with suppress(UserError):
        imported(path)


def test_nothing_is_overwritten_and_nothing_is_run(config: Path, tmp_path: Path) -> None:
    imported(config)
    with pytest.raises(UserError, match="exists already"):
        imported(config)
    for value in ('["touch evil"]', '"touch evil"'):
        evil = written(config, f"_BASE_: [model.yml]\nepoch: !!python/object/apply:os.system {value}")
        with pytest.raises(UserError, match=r"must be a number|could not determine a constructor"):
            imported(evil)
    assert not (tmp_path / "evil").exists()
