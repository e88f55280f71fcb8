from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from toolkit.data.images import Header, read_header, read_rgb, upright, upright_points
from toolkit.data.masks import polygons_to_mask
from toolkit.errors import UserError


def picture(height=24, width=36):
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 // width, y * 255 // height, (x // 12 + y // 12) % 2 * 200], axis=2).astype(np.uint8)


def save(path, rgb, *, orientation=None, **options):
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
        options["exif"] = exif
    Image.fromarray(rgb).save(path, **options)
    return path


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.webp", "ünïcode 图 片.png", "a b/c d.png"])
def test_lossless_formats_and_odd_paths_come_back_exactly(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    save(path, picture(), **({"lossless": True} if name.endswith("webp") else {}))
    np.testing.assert_array_equal(read_rgb(path), picture())
    np.testing.assert_array_equal(read_rgb(str(path)), picture())
    assert read_header(path) == Header((24, 36), 1)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, name, orientation):
    path = save(tmp_path / name, picture(), orientation=orientation)
    transposed = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }[orientation]
    plain = Image.open(save(tmp_path / f"plain-{name}", picture())).convert("RGB")
    expected = np.asarray(plain if transposed is None else plain.transpose(transposed))
    actual = read_rgb(path)
    assert actual.shape == expected.shape
    # Decoders of JPEG and WebP round differently.
    assert np.abs(actual.astype(int) - expected).max() <= (6 if name in ("a.jpg", "a.webp") else 0)
    header = read_header(path)
    assert header.stored == (24, 36)
    assert header.displayed == expected.shape[:2]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_points_turn_with_the_pixels(orientation):
    corners = np.array([[3.0, 2.0], [9.0, 2.0], [9.0, 6.0], [3.0, 6.0]])
    mask = polygons_to_mask([corners.ravel()], (15, 22))
    turned = upright_points(corners, orientation, (15, 22))
    expected = upright(mask, orientation)
    np.testing.assert_array_equal(polygons_to_mask([turned.ravel()], expected.shape), expected)


def test_gray_alpha_palette_16_bit_and_cmyk(tmp_path):
    gray = picture()[..., 0]
    Image.fromarray(gray).save(tmp_path / "gray.png")
    np.testing.assert_array_equal(read_rgb(tmp_path / "gray.png"), np.repeat(gray[..., None], 3, axis=2))

    Image.fromarray(np.dstack([picture(), gray])).save(tmp_path / "alpha.png")
    np.testing.assert_array_equal(read_rgb(tmp_path / "alpha.png"), picture())

    few = (picture() // 128 * 128).astype(np.uint8)
    Image.fromarray(few).quantize(8).save(tmp_path / "palette.png")
    np.testing.assert_array_equal(read_rgb(tmp_path / "palette.png"), few)

    deep = gray.astype(np.uint16) * 256 + 77
    cv2.imwrite(str(tmp_path / "deep.png"), deep)
    np.testing.assert_array_equal(read_rgb(tmp_path / "deep.png")[..., 0], gray)

    smooth = np.full((24, 36, 3), (200, 40, 90), np.uint8)
    Image.fromarray(smooth).convert("CMYK").save(tmp_path / "print.jpg", quality=95)
    assert np.abs(read_rgb(tmp_path / "print.jpg").astype(int) - smooth).max() <= 4


def test_a_gif_is_read_whichever_decoder_has_it(tmp_path):
    save(tmp_path / "a.gif", np.full((8, 9, 3), 255, np.uint8))
    assert (read_rgb(tmp_path / "a.gif") == 255).all()
    assert read_header(tmp_path / "a.gif").stored == (8, 9)


@pytest.mark.parametrize("read", [read_rgb, read_header])
@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "bmp", "gif", "tif"])
@pytest.mark.parametrize("kept", [0.0, 0.02, 0.5, 0.95])
def test_a_file_that_was_cut_off_is_refused_by_name(tmp_path, read, kind, kept):
    rng = np.random.default_rng(0)
    save(tmp_path / f"whole.{kind}", rng.integers(0, 255, (90, 120, 3), dtype=np.uint8))
    data = (tmp_path / f"whole.{kind}").read_bytes()
    path = tmp_path / f"cut.{kind}"
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(UserError, match=rf"cut\.{kind}: ") as error:
        read(path)
    assert "\n" not in str(error.value)
    assert read(tmp_path / f"whole.{kind}") is not None


@pytest.mark.parametrize("read", [read_rgb, read_header])
def test_what_is_no_picture_is_refused_by_name(tmp_path, read):
    (tmp_path / "notes.jpg").write_text("not a picture")
    with pytest.raises(UserError, match=r"notes\.jpg: not a picture"):
        read(tmp_path / "notes.jpg")
    with pytest.raises(UserError, match=r"nowhere\.jpg: cannot be read: No such file"):
        read(tmp_path / "nowhere.jpg")
    with pytest.raises(UserError, match="cannot be read"):
        read(tmp_path)


@pytest.mark.parametrize("read", [read_rgb, read_header])
def test_bytes_after_the_end_of_a_jpeg_do_no_harm(tmp_path, read):
    buffer = io.BytesIO()
    Image.fromarray(picture()).save(buffer, "JPEG")
    path = tmp_path / "motion photo.jpg"
    path.write_bytes(buffer.getvalue() + bytes(range(256)) * 20)
    assert read(path) is not None


def test_damaged_exif_does_not_lose_the_picture(tmp_path):
    path = save(tmp_path / "a.jpg", picture(), orientation=6)
    data = path.read_bytes()
    place = data.index(b"Exif\x00\x00") + 6
    path.write_bytes(data[:place] + b"\xff" * 12 + data[place + 12 :])
    assert read_rgb(path).shape == (24, 36, 3)
