"""Opening pictures as people have them: rotated, deep, damaged, or not pictures at all."""

import os
import warnings

import numpy as np
import pytest
from PIL import Image

from nanoladder import photos
from nanoladder.photos import ImageError, image_size, load_image


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


def test_sixteen_bits_a_pixel_keep_their_upper_half(tmp_path):
    levels = (np.arange(12, dtype=np.uint16) * 5000).reshape(3, 4)
    Image.fromarray(levels).save(tmp_path / "deep.png")
    assert np.array_equal(np.asarray(load_image(tmp_path / "deep.png"))[..., 0], levels // 256)


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
    for name in ("script.png", "pipe.png", "loop.png"):
        with pytest.raises(ImageError, match=name):
            image_size(tmp_path / name)


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
