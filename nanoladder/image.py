"""Pictures in: resize once, cut into patches, carry boxes along. Equals transformers' Qwen2VLImageProcessor.

Shapes: B pictures, F frames, H, W pixels, p patch size, m merge size, N patches.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

MAX_FILE_PIXELS = 100_000_000  # a larger file is damaged or hostile
COUNTED = 8  # pictures whose third coordinate lies between -1 and 1, as x and y do; later ones go on beyond


class ImageError(ValueError):
    """A picture that cannot be used; one line that names the file."""


@dataclass(frozen=True)
class ImageConfig:
    """How pictures become patches; the defaults are the published Qwen2.5-VL's (mean and std of CLIP)."""

    patch_size: int = 14  # pixels
    merge_size: int = 2  # patches a side of one image token
    temporal_patch_size: int = 2  # frames
    min_pixels: int = 56 * 56
    max_pixels: int = 1280 * 28 * 28
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)
    # Three more channels, ours alone: each pixel's x and y (CoordConv, arXiv 1807.03247), and which picture it is of.
    coordinates: bool = False

    @property
    def factor(self) -> int:
        """Both sides of a resized picture are multiples of this many pixels: the side of an image token."""
        return self.patch_size * self.merge_size


def smart_resize(height: int, width: int, factor: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """Nearest multiples of `factor` (ties to even) with an area within the limits, aspect ratio about kept.

    Returns (height, width). Raises ValueError for aspect ratios above 200.
        smart_resize(968, 1296, 28, 56 * 56, 1280 * 28 * 28) -> (840, 1148)
    """
    if max(height, width) > 200 * min(height, width):
        raise ValueError(f"aspect ratio of a {width} x {height} image is above 200")
    tall, wide = round(height / factor) * factor, round(width / factor) * factor
    if tall * wide > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        tall, wide = (max(factor, math.floor(side / shrink / factor) * factor) for side in (height, width))
    elif tall * wide < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        tall, wide = (math.ceil(side * grow / factor) * factor for side in (height, width))
    return tall, wide


def fit(size: tuple[int, int], config: ImageConfig) -> tuple[int, int]:
    """(width, height) of a picture as the model will see it."""
    height, width = smart_resize(size[1], size[0], config.factor, config.min_pixels, config.max_pixels)
    return width, height


def rescale_box(box, from_size: tuple[int, int], to_size: tuple[int, int]) -> list[float]:
    """Carry a box (x1, y1, x2, y2) from a picture of one (width, height) to the same picture at another.

    rescale_box((0, 0, 50, 20), (100, 100), fit((100, 100), config)) gives the box the model is to answer.
    """
    x, y = to_size[0] / from_size[0], to_size[1] / from_size[1]
    return [box[0] * x, box[1] * y, box[2] * x, box[3] * y]


def load_image(path) -> Image.Image:
    """Read one picture as RGB. Raises ImageError for a missing, damaged, truncated or absurdly large file."""
    if not Path(path).is_file():
        raise ImageError(f"{path}: no such image")
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_FILE_PIXELS:
                raise ImageError(f"{path}: {image.width} x {image.height} pixels is too large to be an image")
            return image.convert("RGB")
    except Image.DecompressionBombError:
        raise ImageError(f"{path}: too large to be an image") from None
    except (OSError, SyntaxError) as error:  # PIL reports damage as either
        raise ImageError(f"{path}: cannot be read as an image ({error})") from None


@lru_cache
def normal_values(config: ImageConfig) -> np.ndarray:
    """What each of the 256 levels of each channel becomes: (level / 255 - mean) / std. -> float32 [3, 256]"""
    levels = (np.arange(256) * (1 / 255)).astype(np.float32)
    return (levels - np.float32(config.mean)[:, None]) / np.float32(config.std)[:, None]


def cut(clips: np.ndarray, config: ImageConfig) -> np.ndarray:
    """Clips [B, F, H, W, C] -> patches [C, B*N, temporal * p * p]."""
    p, m, two = config.patch_size, config.merge_size, config.temporal_patch_size
    B, F, H, W, C = clips.shape
    blocks = clips.reshape(B, F // two, two, H // (p * m), m, p, W // (p * m), m, p, C)
    return blocks.transpose(9, 0, 1, 3, 6, 4, 7, 2, 5, 8).reshape(C, -1, two * p * p)


@lru_cache
def coordinate_patches(height: int, width: int, config: ImageConfig) -> np.ndarray:
    """x and y of the pixels of one temporal patch, -1 at the left and upper edge, 1 at the others. -> [2, N, ...]"""
    x, y = ((np.arange(side, dtype=np.float32) * 2 + 1) / side - 1 for side in (width, height))
    frame = np.stack(np.meshgrid(x, y), axis=-1)  # [H, W, 2]
    return cut(np.broadcast_to(frame, (1, config.temporal_patch_size, *frame.shape)), config)


def patchify(clips: np.ndarray, config: ImageConfig, first: int = 0) -> np.ndarray:
    """Cut uint8 clips [B, F, H, W, 3] into float32 patches [B*N, 3 * temporal * p * p], or 6 with coordinates.

    A still has F = 1; F short of whole temporal patches repeats the last frame. H and W are multiples of
    config.factor. Patches come block by block: the m x m that share an image token follow one another. Stills, and
    the temporal patches of a video, are counted from `first` on.
    """
    clips = np.concatenate([clips] + [clips[:, -1:]] * (-clips.shape[1] % config.temporal_patch_size), axis=1)
    blocks = cut(clips, config)  # [3, B*N, 2*p*p]
    patches = np.empty((blocks.shape[1], 3 + 3 * config.coordinates, blocks.shape[2]), np.float32)
    for channel, values in enumerate(normal_values(config)):
        patches[:, channel] = values[blocks[channel]]
    if config.coordinates:
        where = coordinate_patches(*clips.shape[2:4], config)  # the same for every picture
        pictures, size = len(patches) // where.shape[1], where.shape[1]
        patches[:, 3:5] = np.tile(where, (1, pictures, 1)).swapaxes(0, 1)
        patches[:, 5] = np.repeat((2 * (first + np.arange(pictures)) + 1) / COUNTED - 1, size)[:, None]
    return patches.reshape(len(patches), -1)


def resize(image, size: tuple[int, int]) -> np.ndarray:
    """A PIL image or uint8 array [H, W, 3] -> uint8 [height, width, 3] by antialiased bicubic, if need be."""
    if isinstance(image, np.ndarray) and image.shape[1::-1] == size:
        return image
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image = image.convert("RGB")
    return np.asarray(image if image.size == size else image.resize(size, Image.Resampling.BICUBIC))


def size_of(image) -> tuple[int, int]:
    """(width, height) of a PIL image or an array [H, W, 3]."""
    return image.size if isinstance(image, Image.Image) else image.shape[1::-1]


def preprocess(images: list, config: ImageConfig) -> tuple[Tensor, list[tuple[int, int, int]]]:
    """Stills (PIL or uint8 [H, W, 3], any sizes) -> pixel_values [N, C*2*p*p], grids (1, rows, columns)."""
    arrays = [resize(image, fit(size_of(image), config)) for image in images]
    patches, first = [], 0
    for _, same in groupby(arrays, np.shape):
        clips = np.stack(list(same))[:, None]
        patches.append(patchify(clips, config, first))
        first += len(clips)
    grids = [(1, len(array) // config.patch_size, len(array[0]) // config.patch_size) for array in arrays]
    return torch.from_numpy(np.concatenate(patches) if len(patches) > 1 else patches[0]), grids


def preprocess_video(frames: list, config: ImageConfig) -> tuple[Tensor, tuple[int, int, int]]:
    """Frames of one video, fitted as the first is -> pixel_values [N, C*2*p*p], grid (t, rows, columns)."""
    width, height = fit(size_of(frames[0]), config)
    clip = np.stack([resize(frame, (width, height)) for frame in frames])[None]  # [1, F, H, W, 3]
    steps = -(-len(frames) // config.temporal_patch_size)
    grid = (steps, height // config.patch_size, width // config.patch_size)
    return torch.from_numpy(patchify(clip, config)), grid
