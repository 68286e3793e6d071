"""Opening pictures as people have them: rotated, deep, damaged, or not pictures at all."""

import io
import os
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from nanoladder import photos
from nanoladder.command import UserError
from nanoladder.photos import ImageError, image_size, load_image
from nanoladder.schema import check_images, check_row


def noise(height, width):
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)


def test_a_rotated_photograph_is_read_upright(tmp_path):
    picture = Image.linear_gradient("L").resize((30, 40))  # dark at the top
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    picture.save(tmp_path / "photo.jpg", exif=exif, quality=95)
    loaded = load_image(tmp_path / "photo.jpg")
    assert loaded.size == image_size(tmp_path / "photo.jpg") == (40, 30)
    levels = np.asarray(loaded, int)[..., 0]
    assert (levels[:, 0] > 200).all() and (levels[:, -1] < 50).all()  # dark on the right


@pytest.mark.parametrize("name", ["turned.jpg", "turned.png", "turned.tif", "turned.webp"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_every_orientation_equals_pil(name, turn, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = turn
    Image.fromarray(noise(30, 40)).save(tmp_path / name, exif=exif)
    with Image.open(tmp_path / name) as image:
        wanted = ImageOps.exif_transpose(image).convert("RGB")
    loaded = load_image(tmp_path / name)
    assert loaded.size == image_size(tmp_path / name) == ((40, 30) if turn < 5 else (30, 40))
    assert np.array_equal(np.asarray(loaded), np.asarray(wanted))


def test_an_orientation_behind_the_pixels_is_found(tmp_path):
    """A PNG's eXIf chunk may stand there."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise(30, 40)).save(tmp_path / "a.png", exif=exif)
    data = (tmp_path / "a.png").read_bytes()
    start = data.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(data[start : start + 4], "big")
    whole = data[:start] + data[end:-12] + data[start:end] + data[-12:]
    (tmp_path / "a.png").write_bytes(whole)
    assert load_image(tmp_path / "a.png").size == image_size(tmp_path / "a.png") == (30, 40)


@pytest.mark.parametrize("name", ["deep.png", "deep.tif"])
def test_sixteen_bits_a_pixel_keep_their_upper_half(name, tmp_path):
    levels = (np.arange(12, dtype=np.uint16) * 5000).reshape(3, 4)
    Image.fromarray(levels).save(tmp_path / name)
    assert np.array_equal(np.asarray(load_image(tmp_path / name))[..., 0], levels // 256)
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    Image.fromarray(levels).save(tmp_path / name, exif=exif)
    turned = np.asarray(load_image(tmp_path / name))[..., 0]
    assert np.array_equal(turned, levels[::-1, ::-1] // 256)


def test_a_transparent_level_of_sixteen_bits_becomes_white(tmp_path):
    levels = (np.arange(12, dtype=np.uint16) * 5000).reshape(3, 4)
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "PNG")
    data, chunk = file.getvalue(), b"tRNS" + (10000).to_bytes(2, "big")
    at = data.index(b"IDAT") - 4
    chunk = b"\0\0\0\2" + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    (tmp_path / "a.png").write_bytes(data[:at] + chunk + data[at:])
    loaded = np.asarray(load_image(tmp_path / "a.png"))[..., 0]
    assert np.array_equal(loaded, np.where(levels == 10000, 255, levels // 256))


@pytest.mark.parametrize("mode", ["I", "F"])
def test_thirty_two_bits_whose_range_is_not_known_are_refused(mode, tmp_path):
    Image.new(mode, (30, 20), 70000).save(tmp_path / "a.tif")
    with pytest.raises(ImageError, match="a.tif.*32 bits"):
        image_size(tmp_path / "a.tif")


def test_what_is_transparent_is_white(tmp_path):
    picture = Image.fromarray(noise(20, 20))
    picture.putalpha(0)
    palette = Image.new("P", (20, 20), 7)
    palette.putpalette(range(256), "RGB")
    for name, image, flags in [
        ("rgba.png", picture, {}),
        ("la.png", picture.convert("LA"), {}),
        ("rgba.webp", picture, {"lossless": True, "exact": True}),
        ("rgba.tif", picture, {}),
        ("palette.png", palette, {"transparency": 7}),
        ("palette.gif", palette, {"transparency": 7}),
    ]:
        image.save(tmp_path / name, **flags)
        assert (np.asarray(load_image(tmp_path / name)) == 255).all(), name


@pytest.mark.parametrize("name, mode", [
    ("a.png", "1"), ("a.tif", "1"), ("a.gif", "P"), ("a.bmp", "P"), ("a.png", "P"),
    ("a.jpg", "CMYK"), ("a.tif", "CMYK"), ("a.jpg", "L"), ("a.tif", "YCbCr"), ("a.webp", "RGB"),
])  # fmt: skip
def test_every_mode_becomes_rgb(name, mode, tmp_path):
    smooth = Image.linear_gradient("L").resize((60, 40)).convert("RGB")
    smooth.convert(mode).save(tmp_path / name)
    loaded = np.asarray(load_image(tmp_path / name), int)
    wanted = np.asarray(smooth.convert(mode).convert("RGB"), int)
    assert loaded.shape == (40, 60, 3) and abs(loaded - wanted).mean() < 3


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png", "a.tif"])
def test_of_an_animation_the_first_frame_is_read(name, tmp_path):
    first, second = (Image.new("RGB", (30, 20), colour) for colour in ("red", "blue"))
    flags = {"lossless": True} if name == "a.webp" else {}
    first.save(tmp_path / name, save_all=True, append_images=[second], **flags)
    assert (np.asarray(load_image(tmp_path / name)) == (255, 0, 0)).all()


def test_the_content_tells_the_format_whatever_the_name_says(tmp_path):
    for format in ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"):
        Image.fromarray(noise(20, 30)).save(tmp_path / "a.jpeg", format)
        assert load_image(tmp_path / "a.jpeg").size == (30, 20)


def test_a_picture_that_is_too_narrow_for_a_model_is_named_before_training(tmp_path):
    Image.new("RGB", (4000, 20)).save(tmp_path / "wide.png")
    assert image_size(tmp_path / "wide.png") == (4000, 20)
    Image.new("RGB", (4000, 16)).save(tmp_path / "narrow.png")
    raw = {"question_id": 1, "question": "?", "answer": "a", "image": ["narrow.png"]}
    row = check_row(raw | {"data_type": "single_image"}, tmp_path, "rows.jsonl:7")
    with pytest.raises(UserError, match="rows.jsonl:7: .*narrow.png: 4000 x 16 pixels.*crop it"):
        check_images([row])


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"])
def test_a_damaged_file_is_a_picture_or_one_line(format, tmp_path, capfd):
    """Bytes are changed, cut out, doubled or set to zero; the file's start is hit most."""
    file, path, refused = io.BytesIO(), tmp_path / "damaged.png", 0
    picture = Image.fromarray(noise(24, 32))
    (picture if format != "GIF" else picture.convert("P")).save(file, format)
    rng, data = np.random.default_rng(0), file.getvalue()
    for trial in range(120):
        damaged, at = bytearray(data), int(len(data) * rng.random() ** 3)
        count = int(rng.integers(1, 20))
        if trial % 4 == 0:
            damaged = damaged[:at]
        elif trial % 4 == 1:
            damaged[at : at + count] = rng.bytes(count)
        elif trial % 4 == 2:
            damaged[at:at] = damaged[at : at + count]
        else:
            damaged[at : at + count] = bytes(count)
        path.write_bytes(damaged)
        try:
            loaded = load_image(path)
            assert loaded.mode == "RGB" and max(loaded.size) <= 200 * min(loaded.size)
        except ImageError as error:
            assert "damaged.png" in str(error) and "\n" not in str(error)
            refused += 1
    assert refused > 20


def test_a_png_whose_pixels_end_early_is_found_although_its_checksums_are_right(tmp_path):
    Image.fromarray(noise(40, 40)).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    at = data.index(b"IDAT") - 4
    pixels = b"IDAT" + data[at + 8 : at + 800]
    chunk = (len(pixels) - 4).to_bytes(4, "big") + pixels + zlib.crc32(pixels).to_bytes(4, "big")
    (tmp_path / "a.png").write_bytes(data[:at] + chunk + data[-12:])
    with pytest.raises(ImageError, match="a.png"):
        image_size(tmp_path / "a.png")


def test_a_truncated_photograph_is_found_before_training(tmp_path):
    Image.fromarray(noise(200, 200)).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:-4000])
    assert image_size(tmp_path / "whole.jpg") == (200, 200)
    with pytest.raises(ImageError, match="cut.jpg"):
        image_size(tmp_path / "cut.jpg")


def test_only_regular_files_of_known_formats_are_opened(tmp_path):
    """Others may start programs (EPS starts ghostscript), or never end (a pipe)."""
    Image.fromarray(noise(20, 20)).save(tmp_path / "a.eps")
    os.rename(tmp_path / "a.eps", tmp_path / "script.png")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    (tmp_path / "device.png").symlink_to("/dev/zero")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "empty.png").touch()
    names = ["script.png", "pipe.png", "loop.png", "device.png", "folder.png", "empty.png"]
    for name in [*names, "a" * 300 + ".png", "nul\0.png", "empty.png/a.png"]:
        with pytest.raises(ImageError) as error:
            image_size(tmp_path / name)
        assert name in str(error.value) and str(error.value).count(str(tmp_path)) == 1


def test_unusable_files_are_named(tmp_path, monkeypatch):
    good = tmp_path / "good.png"
    Image.fromarray(noise(40, 30)).convert("RGBA").save(good)
    assert load_image(good).mode == "RGB" and load_image(good).size == (30, 40)
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:-500])
    (tmp_path / "text.jpg").write_text("no picture", encoding="utf-8")
    for name in ("missing.png", "cut.png", "text.jpg"):
        with pytest.raises(ImageError, match=name) as error:
            load_image(tmp_path / name)
        assert "\n" not in str(error.value)
    monkeypatch.setattr(photos, "MAX_FILE_PIXELS", 1000)
    with pytest.raises(ImageError, match="good.png.*too large"):
        load_image(good)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # PIL itself refuses twice that
    with pytest.raises(ImageError, match="good.png.*too large"), warnings.catch_warnings():
        load_image(good)
