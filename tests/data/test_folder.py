from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.data.convert.datasets import write
from toolkit.data.coco import Picture, Split
from toolkit.data.folder import file_names, new_folder, place_pictures
from toolkit.errors import UserError


def part(*pictures: tuple[Path, str]) -> Split:
    records = [Picture(i, path, name, 20, 30, []) for i, (path, name) in enumerate(pictures)]
    return Split("train", Path("origin"), ("dog",), (1,), records)


def test_a_folder_appears_whole(tmp_path):
    out = tmp_path / "deep" / "out"
    with new_folder(out) as folder:
        (folder / "a").write_text("a")
        assert not out.exists()
    assert [path.name for path in out.parent.rglob("*")] == ["out", "a"]


def fail_in(out, error):
    with new_folder(out) as folder:
        (folder / "a").write_text("a")
        raise error


@pytest.mark.parametrize("error", [UserError("x"), KeyboardInterrupt(), ValueError("y")])
def test_or_not_at_all(tmp_path, error):
    with pytest.raises(type(error)):
        fail_in(tmp_path / "out", error)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_said_in_one_line(tmp_path):
    with pytest.raises(UserError, match=r"big\.png: No space left on device; nothing is left of .*out"):
        fail_in(tmp_path / "out", OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "big.png"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_is_there_stays(tmp_path, kind):
    out = tmp_path / "out"
    if kind == "link":
        out.symlink_to(tmp_path / "nowhere")
    else:
        out.touch() if kind == "file" else out.mkdir()
    with pytest.raises(UserError, match="out: exists already"), new_folder(out):
        pass
    assert out.exists() or out.is_symlink()


def test_names_differ_and_stay_inside_the_folder():
    names = ["a.jpg", "A.JPG", "b/a.jpg", "../a.jpg", "/a.jpg", "C:\\a.jpg", "b\\c.jpg", "a.png"]
    split = part(*((Path(f"{i}"), name) for i, name in enumerate(names)))
    expected = ["a.jpg", "A_2.JPG", "b/a.jpg", "a_3.jpg", "a_4.jpg", "a_5.jpg", "b/c.jpg", "a.png"]
    assert list(file_names([split]).values()) == expected
    assert list(file_names([split], by_stem=True).values()) == [*expected[:-1], "a_6.png"]
    # One picture in two parts is one file.
    assert list(file_names([split, replace(split, name="val")]).values()) == expected


@pytest.mark.parametrize("link", [False, True])
def test_pictures_are_copied_or_linked(tmp_path, link):
    source = write(tmp_path / "a.png")
    (tmp_path / "link.png").symlink_to(source)
    place_pictures({tmp_path / "link.png": "deep/b.png"}, tmp_path / "out", link=link)
    placed = tmp_path / "out" / "deep" / "b.png"
    assert placed.read_bytes() == source.read_bytes()
    assert not placed.is_symlink()
    assert placed.samefile(source) == link


def test_where_links_are_impossible_it_is_said(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(UserError, match=r"cannot be linked .*; leave out --link"):
        place_pictures({write(tmp_path / "a.png"): "a.png"}, tmp_path / "out", link=True)
