"""Pictures against transformers' Qwen2VLImageProcessor (the PIL one), bit for bit."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

import eval as evaluate
import rl
import train
from nanoladder.checkpoint import EVAL_PIXELS, TRAIN_PIXELS, PixelLimits, Policy, load_image_config
from nanoladder.command import UserError, parse
from nanoladder.files import write_json
from nanoladder.hf_config import image_config_to_hf
from nanoladder.image import (
    ImageConfig,
    blank_images,
    image_tokens,
    patchify,
    preprocess,
    rescale_box,
    resized_size,
    smart_resize,
)
from nanoladder.photos import to_rgb

NANO = ImageConfig(patch_size=8, min_pixels=32 * 32, max_pixels=96 * 96)
PUBLISHED = ImageConfig()


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def processor(config):
    qwen2_vl = pytest.importorskip("transformers.models.qwen2_vl.image_processing_pil_qwen2_vl")
    return qwen2_vl.Qwen2VLImageProcessorPil(
        patch_size=config.patch_size, min_pixels=config.min_pixels, max_pixels=config.max_pixels
    )


def transparent_images():
    """Pictures of every mode that can be transparent in part."""
    alpha = Image.fromarray(noise(50, 71, 7)[..., 0])
    colours = Image.fromarray(noise(50, 71, 8))
    grey, palette = colours.convert("L"), colours.convert("P")
    images = [colours.copy(), grey.copy()]
    for image in images:
        image.putalpha(alpha)  # RGBA and LA
    for image, transparency in [(palette, 3), (palette, bytes(range(256))), (grey, 100)]:
        images.append(image.copy())
        images[-1].info["transparency"] = transparency  # as in a PNG's tRNS
    colours.info["transparency"] = colours.getpixel((5, 6))
    return [*images, colours]


@pytest.mark.parametrize("config", [NANO, PUBLISHED])
def test_stills_equal_transformers(config):
    sizes = [(96, 96), (96, 96), (50, 71), (9, 300), (968, 1296), (40, 40), (25, 27)]
    images = [Image.fromarray(noise(*size, seed)) for seed, size in enumerate(sizes)]
    images += [images[2].convert(mode) for mode in ("1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr")]
    images += transparent_images()
    pixel_values, grids = preprocess([to_rgb(image) for image in images], config)
    expected = processor(config)(images, return_tensors="pt")
    assert [list(grid) for grid in grids] == expected["image_grid_thw"].tolist()
    assert torch.equal(pixel_values, expected["pixel_values"])


def test_arrays_equal_pil_images():
    arrays = [noise(96, 96), noise(50, 71), noise(96, 96, 1)]
    ours, grids = preprocess(arrays, NANO)
    wanted, wanted_grids = preprocess([Image.fromarray(array) for array in arrays], NANO)
    assert grids == wanted_grids and torch.equal(ours, wanted)


def test_a_batch_of_one_size_equals_its_images_one_by_one():
    stack = np.stack([noise(96, 64, seed) for seed in range(5)])
    clips = torch.from_numpy(stack)[:, None]
    apart = torch.cat([patchify(clip[None], NANO) for clip in clips])
    assert torch.equal(patchify(clips, NANO), apart)


def test_smart_resize_equals_transformers():
    qwen2_vl = pytest.importorskip("transformers.models.qwen2_vl.image_processing_pil_qwen2_vl")
    reference = qwen2_vl.smart_resize
    rng = np.random.default_rng(0)
    for _ in range(500):
        height, width = (int(side) for side in np.exp(rng.uniform(1.5, 6.5, 2)))
        limits = (28, 56 * 56, int(rng.integers(56 * 56, 10**6)))
        assert smart_resize(height, width, *limits) == reference(height, width, *limits)


def test_smart_resize_rounds_ties_to_even_and_refuses_extreme_aspect_ratios():
    assert smart_resize(42, 70, 28, 1, 10**9) == (56, 56)  # 1.5 -> 2 and 2.5 -> 2
    assert smart_resize(968, 1296, 28, 56 * 56, 1280 * 28 * 28) == (840, 1148)
    with pytest.raises(ValueError, match="2001 x 10 image is too narrow"):
        smart_resize(10, 2001, 28, 1, 10**9)


def test_patches_can_be_put_together_again():
    """Undo the layout by hand.

    Blocks of patches follow one another row by row, and so do the patches inside a block. A patch
    holds channels, and then frames, rows and columns.
    """
    config = ImageConfig(patch_size=8, min_pixels=1, coordinates=True)
    clip = np.stack([noise(32, 48, seed) for seed in range(4)])  # 2 time steps
    pixel_values, grids = preprocess(list(clip), config, is_video=True)
    assert grids == [(2, 4, 6)]
    mean, std = np.array(PUBLISHED.mean), np.array(PUBLISHED.std)
    picture = np.zeros((*clip.shape[:3], 6))
    index = 0
    for t in range(2):
        for y, x in ((y, x) for y in range(2) for x in range(3)):
            for dy, dx in ((0, 0), (0, 1), (1, 0), (1, 1)):
                patch = pixel_values[index].numpy().reshape(6, 2, 8, 8).transpose(1, 2, 3, 0)
                row, column = 8 * (2 * y + dy), 8 * (2 * x + dx)
                picture[2 * t : 2 * t + 2, row : row + 8, column : column + 8] = patch
                index += 1
    assert np.abs((picture[..., :3] * std + mean) * 255 - clip).max() < 1e-3
    # Coordinates are those of the pixels' centres; the picture reaches from -1 to 1.
    assert np.allclose(picture[..., 3], (np.arange(48) + 0.5) / 24 - 1)
    assert np.allclose(picture[..., 4], ((np.arange(32) + 0.5) / 16 - 1)[:, None])
    assert (picture[:2, ..., 5] == -7 / 8).all() and (picture[2:, ..., 5] == -5 / 8).all()
    stills = [noise(32, 48, 0), noise(32, 48, 1), noise(48, 32, 2)]
    pixel_values, _ = preprocess(stills, config)
    numbers = pixel_values.view(3, 24, 6, -1)[:, :, 5]
    assert (numbers == torch.tensor([-7 / 8, -5 / 8, -3 / 8])[:, None, None]).all()


def test_an_odd_number_of_frames_repeats_the_last():
    frames = [noise(96, 96, seed) for seed in range(3)]
    odd, grids = preprocess(frames, NANO, is_video=True)
    even, _ = preprocess([*frames, frames[-1]], NANO, is_video=True)
    assert grids == [(2, 12, 12)] and torch.equal(odd, even)
    still, still_grids = preprocess(frames[:1], NANO)
    video, video_grids = preprocess(frames[:1], NANO, is_video=True)
    assert still_grids == video_grids and torch.equal(still, video)


def test_blank_images_all_look_the_same():
    one, grid = preprocess([noise(96, 96)], blank_images(NANO))
    other, same_grid = preprocess([noise(96, 96, 1)], blank_images(NANO))
    assert grid == same_grid and torch.allclose(one, other, atol=1e-6)
    assert not torch.allclose(preprocess([noise(96, 96)], NANO)[0], one, atol=1e-6)


def test_what_a_picture_costs():
    assert image_tokens((1296, 968), PUBLISHED) == 30 * 41
    for limits, tokens in ((TRAIN_PIXELS, 9 * 13), (EVAL_PIXELS, 19 * 26)):
        config = dataclasses.replace(PUBLISHED, **limits)
        assert image_tokens((1296, 968), config) == tokens
        _, ((_, rows, columns),) = preprocess([noise(968, 1296)], config)
        assert rows * columns == 4 * tokens


# ---------------------------------------------------------------- --min-pixels and --max-pixels


def limited(**flags):
    policy = Policy(None, None, PUBLISHED)
    return policy.limit_pixels(PixelLimits(**flags)).image_config


def test_flags_limit_the_pixels_of_a_checkpoint():
    assert limited() == PUBLISHED
    assert limited(max_pixels=100_000) == dataclasses.replace(PUBLISHED, max_pixels=100_000)
    assert limited(min_pixels=784, max_pixels=784).max_pixels == 784


@pytest.mark.parametrize(
    "flags, words",
    [
        ({"max_pixels": 783}, "--max-pixels 783 is below one image token, 784 pixels"),
        ({"min_pixels": 1}, "--min-pixels 1 is below one image token"),
        ({"max_pixels": 3000}, "--min-pixels 3136 is above --max-pixels 3000"),
        ({"min_pixels": 5000, "max_pixels": 4000}, "--min-pixels 5000 is above --max-pixels 4000"),
    ],
)
def test_limits_that_make_no_sense_are_refused_by_their_flags(flags, words):
    with pytest.raises(UserError, match=words):
        limited(**flags)


def test_limits_are_kept_in_the_checkpoint_and_read_by_transformers(tmp_path):
    qwen2_vl = pytest.importorskip("transformers.models.qwen2_vl.image_processing_pil_qwen2_vl")
    config = limited(**TRAIN_PIXELS)
    write_json(tmp_path / "preprocessor_config.json", image_config_to_hf(config))
    assert load_image_config(tmp_path) == config
    theirs = qwen2_vl.Qwen2VLImageProcessorPil.from_pretrained(tmp_path)
    image = Image.fromarray(noise(968, 1296))
    assert torch.equal(
        preprocess([image], config)[0], theirs([image], return_tensors="pt")["pixel_values"]
    )


def test_with_real_weights_the_scripts_take_the_limits_of_the_paper(tmp_path):
    for script in (train, rl):
        s = parse(script.Settings, ["--model", str(tmp_path)], script.presets)
        assert (s.min_pixels, s.max_pixels) == (16 * 784, 128 * 784)
        s = parse(script.Settings, ["--data", str(tmp_path)], script.presets)
        assert (s.min_pixels, s.max_pixels) == (None, None)
    model, published = ["--model", str(tmp_path)], ["--bench", "localization", "vsibench"]
    for config, flags, limit in [
        (PUBLISHED, published, 512 * 784),
        (PUBLISHED, ["--bench", "localization"], None),  # the checkpoint's own
        (PUBLISHED, [], None),
        (PUBLISHED, [*published, "--max-pixels", "50000"], 50000),
        (NANO, published, None),
    ]:
        write_json(tmp_path / "preprocessor_config.json", image_config_to_hf(config))
        s = parse(evaluate.Settings, [*model, *flags], evaluate.presets)
        assert s.max_pixels == limit


def test_boxes_are_resized_with_their_picture_and_back():
    seen = resized_size((1296, 968), PUBLISHED)
    assert seen == (1148, 840)
    box = rescale_box((0, 484, 1296, 968), (1296, 968), seen)
    assert box == pytest.approx([0, 420, 1148, 840])
    assert rescale_box(box, seen, (1296, 968)) == pytest.approx([0, 484, 1296, 968])
