from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from threading import Thread

import cv2
import numpy as np
import pytest
from PIL import Image

from toolkit.errors import UserError
from toolkit.pipeline import pages
from toolkit.pipeline.inputs import Picture, Source, list_inputs

COLOURS = [(250, 0, 0), (0, 250, 0), (0, 0, 250)]


def pdf(path: Path, colours: list[tuple[int, int, int]] = COLOURS, size: tuple[int, int] = (30, 20)) -> Path:
    """A page of each colour, `size` points wide and high."""
    first, *others = [Image.new("RGB", size, colour) for colour in colours]
    first.save(path, save_all=True, append_images=others)
    return path


def video(path: Path, frames: int = 12) -> Path:
    """Frame k has the gray 20 k, and is red in its left half."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    assert writer.isOpened()
    for k in range(frames):
        frame = np.full((48, 64, 3), 20 * k % 256, np.uint8)
        frame[:, :32, 2] = 255
        writer.write(frame)
    writer.release()
    return path


def read_all(source: object) -> Iterator[Picture]:
    return (each.read() for each in list_inputs(source))


def outcome_of(source: Source) -> Picture | str:
    try:
        return source.read()
    except UserError as error:
        return str(error)


def test_pages_of_a_pdf(tmp_path: Path) -> None:
    path = pdf(tmp_path / "ä 页.PDF")
    found = list(read_all(path))
    assert [picture.path for picture in found] == [str(path)] * 3
    assert [picture.page for picture in found] == [0, 1, 2]
    for picture, colour in zip(found, COLOURS, strict=True):
        assert picture.rgb.shape == (40, 60, 3), "two pixels for a point"
        assert picture.rgb.dtype == np.uint8
        assert np.abs(picture.rgb[20, 30].astype(int) - colour).max() < 12


def test_a_page_of_absurd_size_is_drawn_smaller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "PIXELS", 600)
    [picture] = read_all(pdf(tmp_path / "a.pdf", COLOURS[:1]))
    height, width, _ = picture.rgb.shape
    assert height * width <= 650
    assert abs(width / height - 1.5) < 0.1


def test_frames_of_a_video(tmp_path: Path) -> None:
    path = video(tmp_path / "ä.avi")
    found = list(read_all([path]))
    assert [picture.page for picture in found] == list(range(12))
    assert {picture.path for picture in found} == {str(path)}
    for k, picture in enumerate(found):
        assert picture.rgb.shape == (48, 64, 3)
        assert np.abs(picture.rgb[24, 50].astype(int) - 20 * k).max() < 6
        assert picture.rgb[24, 5, 0] > 240, "red is the first channel"
        assert abs(int(picture.rgb[24, 5, 2]) - 20 * k) < 12


def test_a_folder_gives_pictures_and_pages_but_no_frames(tmp_path: Path) -> None:
    Image.new("RGB", (3, 4)).save(tmp_path / "c.png")
    pdf(tmp_path / "b.pdf")
    video(tmp_path / "a.avi")
    found = [(Path(str(picture.path)).name, picture.page) for picture in read_all(tmp_path)]
    assert found == [("b.pdf", 0), ("b.pdf", 1), ("b.pdf", 2), ("c.png", None)]


def test_what_cannot_be_read_is_said_in_its_place(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    whole = video(tmp_path / "whole.avi", frames=40).read_bytes()
    (tmp_path / "cut.avi").write_bytes(whole[: len(whole) // 2])
    for name in ("no.pdf", "no.mp4", "no.webm"):
        (tmp_path / name).write_bytes(b"nothing of the kind")
    good = pdf(tmp_path / "good.pdf")
    (tmp_path / "cut.pdf").write_bytes(good.read_bytes()[:200])
    names = ["no.pdf", "no.mp4", "cut.pdf", "cut.avi", "no.webm", "gone.pdf", "gone.mov", "good.pdf"]
    said: dict[str, str] = {}
    read: dict[str, int] = {}
    for source in list_inputs([tmp_path / name for name in names]):
        outcome = outcome_of(source)
        if isinstance(outcome, Picture):
            name = Path(str(outcome.path)).name
            read[name] = read.get(name, 0) + 1
        else:
            path, _, reason = outcome.partition(": ")
            said[Path(path).name] = reason
    assert list(said) == names[:-1]
    assert list(read) == ["cut.avi", "good.pdf"]
    assert said["no.pdf"].startswith("not a PDF that can be read")
    assert said["cut.pdf"].startswith("not a PDF that can be read")
    assert said["no.mp4"] == said["no.webm"] == "not a video that can be read"
    assert said["gone.pdf"] == said["gone.mov"] == "no such file"
    assert not any("\n" in reason for reason in said.values())
    assert said["cut.avi"] == f"damaged video: ends after {read['cut.avi']} of 40 frames"
    assert capfd.readouterr().err == "", "FFmpeg keeps quiet"


def test_without_pdfium(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pypdfium2", None)
    [source] = list_inputs(pdf(tmp_path / "a.pdf"))
    with pytest.raises(UserError, match=r'a\.pdf: PDF needs pypdfium2.*pip install "seg-tune\[pdf\]"'):
        source.read()


def test_frames_are_read_when_they_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    closed = []

    def endless(path: str, name: str) -> Iterator[np.ndarray]:
        try:
            while True:
                read.append(path)
                yield np.zeros((4, 5, 3), np.uint8)
        finally:
            closed.append(path)

    monkeypatch.setitem(pages.READERS, ".mp4", endless)
    (tmp_path / "a.mp4").touch()
    sources = list_inputs(tmp_path / "a.mp4")
    assert [source.read().page for source in islice(sources, 5)] == [0, 1, 2, 3, 4]
    assert len(read) == 5
    del sources
    assert len(closed) == 1, "what is left half way is let go of"


def test_documents_in_several_threads(tmp_path: Path) -> None:
    paths = [pdf(tmp_path / f"{i}.pdf", [COLOURS[i % 3]] * 6) for i in range(6)]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda path: [picture.rgb for picture in read_all(path)], paths * 3))
    alone = [[picture.rgb for picture in read_all(path)] for path in paths] * 3
    assert all((a == b).all() for one, other in zip(found, alone, strict=True) for a, b in zip(one, other, strict=True))


def test_urls(tmp_path: Path) -> None:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    pdf(tmp_path / "a b.pdf")
    video(tmp_path / "c.avi")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        found = list(read_all([f"{url}/a%20b.pdf?x=1", f"{url}/c.avi"]))
        [missing] = list_inputs(f"{url}/gone.pdf")
        server.shutdown()
        thread.join()
    assert [(picture.path, picture.page) for picture in found[:4]] == [
        *((f"{url}/a%20b.pdf?x=1", page) for page in range(3)),
        (f"{url}/c.avi", 0),
    ]
    assert len(found) == 15
    with pytest.raises(UserError, match=r"gone\.pdf: cannot be downloaded: .*404"):
        missing.read()
