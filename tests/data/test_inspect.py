from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.pictures import write_dataset
from toolkit.data.inspect import HEIGHT, inspect_dataset
from toolkit.errors import UserError

SETTINGS = ["data.input_size=[96, 96]", "data.train_sizes=[]"]


@pytest.fixture
def data(tmp_path):
    return write_dataset(tmp_path / "data", train=5, val=2)


def drawn(folder):
    return {path.name: np.asarray(Image.open(path).convert("RGB")).astype(int) for path in sorted(folder.iterdir())}


def test_before_stands_left_and_after_right(data, tmp_path):
    flip = [*SETTINGS, "data.train_transforms=[{HorizontalFlip: {p: 1.0}}]"]
    inspect_dataset(data, tmp_path / "out", recipe="PP-YOLOE_seg-S", settings=flip, count=3)
    sheets = drawn(tmp_path / "out")
    assert len(sheets) == 3
    for name, sheet in sheets.items():
        assert name[:4] in ("001_", "002_", "003_")
        before, after = sheet[-HEIGHT:, : sheet.shape[1] - HEIGHT - 12], sheet[-HEIGHT:, -HEIGHT:]
        small = np.asarray(Image.fromarray(before.astype(np.uint8)).resize((HEIGHT, HEIGHT))).astype(int)
        # Masks and pictures turn together; labels and lines are in the way.
        assert np.abs(small[:, ::-1] - after).mean() < 12 < np.abs(small - after).mean()


def test_without_a_recipe_the_pictures_alone(data, tmp_path):
    inspect_dataset(data, tmp_path / "out", part="val", count=9)
    sheets = drawn(tmp_path / "out")
    assert {name[4:] for name in sheets} == {"val 0.jpg", "val 1.jpg"}
    assert all(sheet.shape[0] > HEIGHT and sheet.shape[1] < HEIGHT + 50 for sheet in sheets.values())


def test_masks_are_drawn_where_they_are(data, tmp_path):
    for file in (data / "annotations").iterdir():
        file.write_text(file.read_text().replace('"iscrowd": 0', '"iscrowd": 1', 1))
    inspect_dataset(data, tmp_path / "out", part="val", count=1)
    [sheet] = drawn(tmp_path / "out").values()
    ground = sheet[-1, -1]
    # Discs and squares are painted over in other colours, the ground is not.
    assert (np.abs(sheet[40:] - ground).sum(2) < 40).mean() > 0.5
    assert (np.abs(sheet[40:] - ground).sum(2) > 150).mean() > 0.05


def test_the_same_seed_gives_the_same_pictures(data, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        inspect_dataset(data, tmp_path / name, recipe="PP-YOLOE_seg-S", settings=SETTINGS, count=4, seed=seed)
    a, b, c = (drawn(tmp_path / name) for name in "abc")
    assert list(a) == list(b)
    assert all((a[name] == b[name]).all() for name in a)
    assert list(a) != list(c)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"part": "test"}, "--part test: .* has train, val"),
        ({"settings": ["data.keep_ratio=true"]}, "--set: changes a recipe"),
        ({"recipe": "PP-YOLOE_seg"}, "PP-YOLOE_seg: unknown; did you mean PP-YOLOE_seg-S"),
    ],
)
def test_wrong_calls_are_refused_and_leave_nothing(data, tmp_path, arguments, message):
    with pytest.raises(UserError, match=message):
        inspect_dataset(data, tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()
