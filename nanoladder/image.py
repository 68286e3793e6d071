"""Pictures in: resize once, cut into patches, rescale boxes. Equals Qwen2VLImageProcessor.

A picture is RGB here: photos.load_image opens a file, and photos.to_rgb takes any PIL image.
Shapes: B pictures, F frames, H, W pixels, p patch size, m merge size, N patches.
"""

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate, groupby

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from nanoladder.photos import MAX_ASPECT

COUNTED = 8  # pictures whose number lies between -1 and 1, as x and y do; later ones lie beyond 1


@dataclass(frozen=True)
class ImageConfig:
    """How pictures become patches. The defaults are the published Qwen2.5-VL's."""

    patch_size: int = 14  # pixels
    merge_size: int = 2  # patches a side of one image token
    temporal_patch_size: int = 2  # frames
    min_pixels: int = 56 * 56
    max_pixels: int = 1280 * 28 * 28
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)
    # Three more channels, which the published models lack: each pixel's x and y (CoordConv, arXiv
    # 1807.03247) and the number of its picture.
    coordinates: bool = False

    @property
    def factor(self) -> int:
        """Side of an image token in pixels; both sides of a resized picture are multiples of it."""
        return self.patch_size * self.merge_size


def blank_images(config: ImageConfig) -> ImageConfig:
    """The config under which every picture looks the same: its contrast is divided by a billion."""
    return replace(config, std=(1e9,) * 3)


def smart_resize(
    height: int, width: int, factor: int, min_pixels: int, max_pixels: int
) -> tuple[int, int]:
    """(height, width) as the nearest multiples of `factor`, ties to even, of an area in the limits.

    ValueError for aspect ratios above 200 (MAX_ASPECT).
        smart_resize(968, 1296, 28, 56 * 56, 1280 * 28 * 28) -> (840, 1148)
    """
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise ValueError(f"a {width} x {height} image is too narrow")
    tall, wide = round(height / factor) * factor, round(width / factor) * factor
    if tall * wide > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        sides = (math.floor(side / shrink / factor) * factor for side in (height, width))
        tall, wide = (max(factor, side) for side in sides)
    elif tall * wide < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        tall, wide = (math.ceil(side * grow / factor) * factor for side in (height, width))
    return tall, wide


def resized_size(size: tuple[int, int], config: ImageConfig) -> tuple[int, int]:
    """(width, height) of a picture of the given (width, height) as the model will see it."""
    return smart_resize(*size[::-1], config.factor, config.min_pixels, config.max_pixels)[::-1]


def image_tokens(size: tuple[int, int], config: ImageConfig) -> int:
    """How many image tokens a still of the given (width, height) becomes."""
    width, height = resized_size(size, config)
    return width * height // config.factor**2


def rescale_box(box, from_size: tuple[int, int], to_size: tuple[int, int]) -> list[float]:
    """A box (x1, y1, x2, y2) of a picture of one (width, height), in the picture at another size.

    rescale_box(box, size, resized_size(size, config)) is in the model's pixels.
    """
    x, y = to_size[0] / from_size[0], to_size[1] / from_size[1]
    return [box[0] * x, box[1] * y, box[2] * x, box[3] * y]


@lru_cache
def normal_values(config: ImageConfig, device) -> Tensor:
    """(level / 255 - mean) / std of each of the 256 levels of each channel -> float32 [3, 256]"""
    levels = (np.arange(256) * (1 / 255)).astype(np.float32)
    values = (levels - np.float32(config.mean)[:, None]) / np.float32(config.std)[:, None]
    return torch.from_numpy(values).to(device)


def cut(clips: Tensor, config: ImageConfig) -> Tensor:
    """Clips [B, F, H, W, C] -> patches [C, B*N, temporal * p * p]."""
    p, m, two = config.patch_size, config.merge_size, config.temporal_patch_size
    B, F, H, W, C = clips.shape
    blocks = clips.reshape(B, F // two, two, H // (p * m), m, p, W // (p * m), m, p, C)
    return blocks.permute(9, 0, 1, 3, 6, 4, 7, 2, 5, 8).reshape(C, -1, two * p * p)


@lru_cache
def coordinate_patches(height: int, width: int, config: ImageConfig, device) -> Tensor:
    """x and y of a picture's pixels, from -1 (left, top) to 1 -> [2, N, temporal * p * p]"""
    x, y = ((np.arange(side, dtype=np.float32) * 2 + 1) / side - 1 for side in (width, height))
    frame = torch.from_numpy(np.stack(np.meshgrid(x, y), axis=-1))  # [H, W, 2]
    return cut(frame.expand(1, config.temporal_patch_size, -1, -1, -1), config).to(device)


def patchify(clips: Tensor, config: ImageConfig, first: int = 0) -> Tensor:
    """Cut uint8 clips [B, F, H, W, 3] into float32 patches [B*N, C * temporal * p * p].

    A still has F = 1; where frames are missing to a whole temporal patch, the last one is repeated.
    H and W are multiples of config.factor. The m x m patches of an image token follow one another.
    Stills, and the temporal patches of a video, are numbered from `first` on.
    """
    missing = -clips.shape[1] % config.temporal_patch_size
    blocks = cut(torch.cat([clips] + [clips[:, -1:]] * missing, dim=1), config)  # [3, B*N, 2*p*p]
    colours = normal_values(config, clips.device)
    channels = [values[levels.int()] for values, levels in zip(colours, blocks)]
    if config.coordinates:
        where = coordinate_patches(*clips.shape[2:4], config, clips.device)
        pictures = blocks.shape[1] // where.shape[1]
        channels.extend(where.repeat(1, pictures, 1))  # x and y, the same for every picture
        numbers = (2 * (first + torch.arange(pictures, device=clips.device)) + 1) / COUNTED - 1
        channels.append(numbers.repeat_interleave(where.shape[1])[:, None].expand_as(channels[0]))
    return torch.stack(channels, dim=1).flatten(1)


def resize(image, size: tuple[int, int]) -> np.ndarray:
    """A PIL image or uint8 [H, W, 3] -> uint8 [height, width, 3], by antialiased bicubic."""
    if size_of(image) == size:
        return np.asarray(image)
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    return np.asarray(image.resize(size, Image.Resampling.BICUBIC))


def size_of(image) -> tuple[int, int]:
    """(width, height) of a PIL image or an array [H, W, 3]."""
    return image.size if isinstance(image, Image.Image) else image.shape[1::-1]


def load_clips(images: list, config: ImageConfig, is_video: bool = False) -> list[Tensor]:
    """Resize pictures (PIL or uint8 [H, W, 3]) -> uint8 clips [B, F, H, W, 3].

    Neighbouring stills of one size make one clip each, B of them. A video is a single clip of F
    frames, all resized as the first is.
    """
    first = resized_size(size_of(images[0]), config)
    sizes = [first if is_video else resized_size(size_of(image), config) for image in images]
    arrays = [resize(image, size) for image, size in zip(images, sizes)]
    stacks = [np.stack(list(same)) for _, same in groupby(arrays, np.shape)]
    return [torch.from_numpy(x[None] if is_video else x[:, None]) for x in stacks]


def grids_of(clips: list[Tensor], config: ImageConfig) -> list[tuple[int, int, int]]:
    """(time steps, rows, columns) in patches of every still or video."""
    p, two = config.patch_size, config.temporal_patch_size
    return [
        (-(-frames // two), height // p, width // p)
        for count, frames, height, width, _ in (clip.shape for clip in clips)
        for _ in range(count)
    ]


def pixel_values_of(clips: list[Tensor], config: ImageConfig) -> Tensor:
    """The clips of one row as the model's pixel_values [N, C*2*p*p], on the clips' device."""
    firsts = accumulate((len(clip) for clip in clips), initial=0)
    return torch.cat([patchify(clip, config, first) for clip, first in zip(clips, firsts)])


def preprocess(images: list, config: ImageConfig, is_video: bool = False):
    """Stills, or the frames of a video -> pixel_values [N, C*2*p*p] and their grids (grids_of)."""
    clips = load_clips(images, config, is_video)
    return pixel_values_of(clips, config), grids_of(clips, config)
