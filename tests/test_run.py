from __future__ import annotations

from pathlib import Path

import pytest

from tests.test_recipe import small_recipe
from toolkit.errors import UserError
from toolkit.recipe import Recipe
from toolkit.run import Run, recipe_beside

RECIPE = Recipe.model_validate(small_recipe())


def test_a_new_run_is_the_latest_and_knows_its_recipe(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "output", RECIPE)
    assert run.path.name.startswith("PP-YOLOE_seg-S-")
    assert Run.find(None, output=tmp_path / "output").path.samefile(run.path)
    assert run.recipe() == RECIPE


def test_two_runs_in_one_second_do_not_share_a_folder(tmp_path: Path) -> None:
    first, second = Run.create(tmp_path, RECIPE), Run.create(tmp_path, RECIPE)
    assert first.path != second.path
    assert Run.find(None, output=tmp_path).path.samefile(second.path)


def test_where_links_are_forbidden_a_text_file_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no privilege")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    run = Run.create(tmp_path, RECIPE)
    assert not (tmp_path / "latest").is_symlink()
    assert Run.find(None, output=tmp_path).path.samefile(run.path)


def test_no_run_is_an_error_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="seg-tune train"):
        Run.find(None, output=tmp_path)
    with pytest.raises(UserError, match=r"no recipe\.yaml"):
        Run.find(tmp_path)


def test_weights_find_the_recipe_of_their_run(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "output", RECIPE)
    assert recipe_beside(run.best_weights) == run.recipe_file.resolve()
    assert recipe_beside(tmp_path / "elsewhere" / "deep" / "model.pdparams") is None
