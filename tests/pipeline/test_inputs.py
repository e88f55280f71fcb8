from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from toolkit.errors import UserError
from toolkit.pipeline import inputs
from toolkit.pipeline.inputs import Picture, list_inputs

RGB = np.random.default_rng(0).integers(0, 256, (11, 17, 3), dtype=np.uint8)


def read_all(source: object) -> Iterator[Picture]:
    return (each.read() for each in list_inputs(source))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures of three widths, one in a folder below, and a file that is none."""
    (tmp_path / "ü").mkdir()
    for name, width in (("b.png", 3), ("A.PNG", 4), ("ü/c d.jpeg", 5)):
        Image.fromarray(RGB[:, :width]).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


def test_file_with_a_name_in_any_script(tmp_path: Path) -> None:
    path = tmp_path / "bild 图片.png"
    Image.fromarray(RGB).save(path)
    for source in (path, str(path), {"img": str(path)}):
        [picture] = read_all(source)
        assert (picture.rgb == RGB).all()
        assert picture.path == str(path)


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(RGB).save(tmp_path / "turned.png", exif=exif)
    [picture] = read_all(tmp_path / "turned.png")
    assert (picture.rgb == np.rot90(RGB, -1)).all()


def test_folder_is_sorted_with_all_below(folder: Path) -> None:
    pictures = list(read_all(folder))
    assert [picture.path for picture in pictures] == [str(folder / n) for n in ("A.PNG", "b.png", "ü/c d.jpeg")]
    assert [picture.rgb.shape[1] for picture in pictures] == [4, 3, 5]


def test_folder_without_pictures(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no picture in this folder"):
        list(read_all(tmp_path))


def test_folder_with_links(folder: Path) -> None:
    (folder / "ü" / "round").symlink_to(folder, target_is_directory=True)
    (folder / "c.png").symlink_to(folder / "b.png")
    (folder / "d.png").symlink_to(folder / "nowhere.png")
    (folder / "e.png").mkdir()
    found = [Path(str(source.value)).relative_to(folder).as_posix() for source in list_inputs(folder)]
    assert found == ["A.PNG", "b.png", "c.png", "ü/c d.jpeg"]


def test_listing_reads_nothing(folder: Path) -> None:
    (folder / "a broken.jpg").write_bytes(b"nothing")
    sources = list(list_inputs(folder))
    assert len(sources) == 4
    with pytest.raises(UserError, match=r"a broken\.jpg"):
        sources[1].read()


def test_arrays_are_bgr() -> None:
    [picture] = read_all(RGB[..., ::-1])
    assert (picture.rgb == RGB).all()
    assert picture.path is None
    [gray] = read_all(RGB[..., 0])
    assert (gray.rgb == RGB[..., :1]).all()


def test_lists_are_read_when_asked_for(folder: Path) -> None:
    pictures = read_all([RGB, folder / "b.png", [str(folder / "A.PNG")], folder / "missing.png"])
    assert [next(pictures).rgb.shape[1] for _ in range(3)] == [17, 3, 4]
    with pytest.raises(UserError, match=r"missing\.png"):
        next(pictures)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (RGB.astype(np.float32), r"must be uint8 \[H, W, 3\] in BGR order \(is: float32 \[11, 17, 3\]\)"),
        (np.zeros((2, 2, 4), np.uint8), "must be uint8"),
        (np.zeros((0, 2, 3), np.uint8), "must be uint8"),
        (7, "int: unknown kind; give a path"),
        ({"image": "a.png"}, r"needs the key img \(has: image\)"),
    ],
)
def test_what_is_no_picture(source: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        list(read_all(source))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_url(tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), RGB[..., ::-1])
    (tmp_path / "b.png").write_text("no picture")
    [picture] = read_all(f"{server}/a.png")
    assert (picture.rgb == RGB).all()
    assert picture.path == f"{server}/a.png"
    with pytest.raises(UserError, match=r"b\.png: not a picture"):
        list(read_all(f"{server}/b.png"))
    with pytest.raises(UserError, match=r"c\.png: cannot be downloaded: .*404"):
        list(read_all(f"{server}/c.png"))
    monkeypatch.setattr(inputs, "URL_BYTES", 10)
    with pytest.raises(UserError, match="larger than"):
        list(read_all(f"{server}/a.png"))
