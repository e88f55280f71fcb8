from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from toolkit.bundled import recipes_dir
from toolkit.errors import UserError
from toolkit.recipe import Recipe, Tiling, dump_recipe, load_recipe, parse_settings, parse_tiling
from toolkit.zoo import MODELS

SHIPPED = sorted(path.stem for path in recipes_dir().glob("*.yaml"))


def small_recipe() -> dict[str, object]:
    return {
        "model": {"name": "PP-YOLOE_seg-S"},
        "data": {"input_size": [64, 64]},
        "train": {
            "epochs": 12,
            "batch_size": 2,
            "lr": 0.01,
            "lr_batch_size": 8,
            "optimizer": {"name": "Momentum"},
            "schedule": {"name": "step", "milestones": [8, 11]},
        },
    }


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    path = tmp_path / "my.yaml"
    path.write_text(yaml.safe_dump(small_recipe()), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", MODELS)
def test_every_model_has_a_recipe_of_its_own_name(name: str) -> None:
    assert load_recipe(name).model.name == name


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_recipe_shows_its_commands(name: str) -> None:
    header = (recipes_dir() / f"{name}.yaml").read_text(encoding="utf-8")
    assert f"seg-tune train --model {name}" in header
    assert "seg-tune eval" in header
    assert "seg-tune export" in header


@pytest.mark.parametrize("name", SHIPPED)
def test_a_resolved_recipe_reads_back_equal(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name, {"data.path": "/dä ta"}).model_copy(update={"classes": ["猫", "dog: big"]})
    path = tmp_path / "recipe.yaml"
    path.write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(path) == recipe


@pytest.mark.parametrize(
    ("name", "hint"), [("Mask-RTDETR-S", "did you mean Mask-RT-DETR-S"), ("zzz", "seg-tune models")]
)
def test_an_unknown_model_is_refused_with_the_way_out(name: str, hint: str) -> None:
    with pytest.raises(UserError, match=hint):
        load_recipe(name)


def test_an_unknown_key_is_refused_with_its_place_and_the_likely_one(recipe_file: Path) -> None:
    with pytest.raises(UserError, match=r"my\.yaml: train\.epoch: unknown key; did you mean epochs\?"):
        load_recipe(recipe_file, {"train.epoch": 3})


def test_a_value_of_the_wrong_kind_is_refused_with_its_place(recipe_file: Path) -> None:
    with pytest.raises(UserError, match=r"train\.batch_size: .*greater than 0"):
        load_recipe(recipe_file, {"train.batch_size": 0})


def test_yaml_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("train: {epochs: 3\nmodel: [", encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load_recipe(path)
    assert "\n" not in str(caught.value)
    assert "broken.yaml" in str(caught.value)


def test_python_objects_in_yaml_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "evil.yaml"
    path.write_text("model: !!python/object/apply:os.system ['touch /tmp/owned']", encoding="utf-8")
    with pytest.raises(UserError, match="not a readable YAML"):
        load_recipe(path)


def test_other_epochs_move_the_milestones(recipe_file: Path) -> None:
    assert load_recipe(recipe_file, {"train.epochs": 24}).train.schedule.milestones == [16, 22]
    assert load_recipe(recipe_file, {"train.epochs": 1}).train.schedule.milestones == []
    given = {"train.epochs": 24, "train.schedule.milestones": [3]}
    assert load_recipe(recipe_file, given).train.schedule.milestones == [3]


def test_milestones_beyond_the_training_are_refused(recipe_file: Path) -> None:
    with pytest.raises(UserError, match="milestones must be smaller"):
        load_recipe(recipe_file, {"train.schedule.milestones": [30]})


def test_settings_are_read_as_yaml() -> None:
    parsed = parse_settings(["train.lr=1e-4", "train.freeze=[backbone, neck]", "data.path=/a=b", "train.ema=null"])
    assert parsed == {"train.lr": 1e-4, "train.freeze": ["backbone", "neck"], "data.path": "/a=b", "train.ema": None}


@pytest.mark.parametrize("setting", ["train.epochs", "=3", "train.freeze=[a"])
def test_a_malformed_setting_is_refused(setting: str) -> None:
    with pytest.raises(UserError, match="--set"):
        parse_settings([setting])


def test_a_section_cannot_be_set_below_a_value(recipe_file: Path) -> None:
    with pytest.raises(UserError, match="epochs is a value"):
        load_recipe(recipe_file, {"train.epochs.more": 3})


@example(epochs=1, lr=1.0, size=(1, 1), classes=["\x85", "a\u2028b"])
@given(
    epochs=st.integers(1, 500),
    lr=st.floats(1e-6, 1.0),
    size=st.tuples(st.integers(1, 2000), st.integers(1, 2000)),
    classes=st.lists(st.text(max_size=12), max_size=5),
)
def test_any_recipe_survives_its_file(
    epochs: int, lr: float, size: tuple[int, int], classes: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    tree = small_recipe()
    tree["data"] = {"input_size": list(size)}
    tree["train"] = {**tree["train"], "epochs": epochs, "lr": lr, "schedule": {"name": "cosine"}}  # type: ignore[dict-item]
    tree["classes"] = classes
    recipe = Recipe.model_validate(tree)
    path = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    path.write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(path) == recipe


def test_tiles_are_none_until_a_size_is_set(recipe_file: Path, tmp_path: Path) -> None:
    assert load_recipe(recipe_file).tiling is None
    tiled = load_recipe(recipe_file, parse_settings(["tiling.size=[640, 512]", "tiling.overlap=0.1"]))
    assert tiled.tiling == Tiling(size=(640, 512), overlap=0.1)
    # A run's recipe says `tiling: null`.
    written = tmp_path / "written.yaml"
    written.write_text(dump_recipe(load_recipe(recipe_file)), encoding="utf-8")
    assert load_recipe(written, {"tiling.size": [64, 64]}).tiling == Tiling(size=(64, 64))


def test_a_block_outside_a_recipe_is_a_mapping_or_its_yaml_or_off() -> None:
    assert parse_tiling("{size: [64, 96]}", origin="x") == parse_tiling({"size": [64, 96]}, origin="x")
    assert parse_tiling("off", origin="x") is parse_tiling(False, origin="x") is False
    assert parse_tiling(None, origin="x") is None


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("{size: [64, 64], overlap: 0.9}", r"tiling\.overlap: Input should be less than 0\.9 \(is: 0\.9\)"),
        ("{size: [64, 64], overlap: -0.1}", r"tiling\.overlap: Input should be greater than or equal to 0 "),
        ("{size: [16, 64]}", r"tiling\.size\.0: Input should be greater than or equal to 32 \(is: 16\)"),
        ("{overlap: 0.1}", r"tiling\.size: Field required"),
        ("{size: [64, 64], overlaps: 0.1}", r"tiling\.overlaps: unknown key; did you mean overlap\?"),
        ("64", r"tiling: .* \(is: 64\)"),
        ("{size: [64", r"tiling: not valid YAML; say \{size: \[640, 640\]\}, or off"),
    ],
)
def test_a_bad_block_is_named(block: str, message: str) -> None:
    with pytest.raises(UserError, match="^--tiling: " + message) as error:
        parse_tiling(block, origin="--tiling")
    assert "\n" not in str(error.value)
