"""Opening picture files: which formats, which sizes, and upright as they were taken."""

from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")  # others may start programs, or hang
MAX_FILE_PIXELS = 100_000_000  # a larger file is damaged or hostile


class ImageError(ValueError):
    """A picture that cannot be used; its message names the file."""


@contextmanager
def open_image(path):
    """A picture's file, opened by PIL. ImageError if it is missing, damaged or absurdly large."""
    if not Path(path).is_file():
        raise ImageError(f"{path}: no such image")
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MAX_FILE_PIXELS:
                pixels = f"{image.width} x {image.height} pixels"
                raise ImageError(f"{path}: {pixels} is too large to be an image")
            yield image
    except Image.DecompressionBombError:
        raise ImageError(f"{path}: too large to be an image") from None
    except (OSError, SyntaxError) as error:  # PIL reports damage as either
        raise ImageError(f"{path}: cannot be read as an image ({error})") from None


def load_image(path) -> Image.Image:
    """Read one picture, upright, as RGB. ImageError as open_image."""
    with open_image(path) as image:
        if image.mode.startswith("I"):  # 16 bits a pixel, of which PIL would keep the lower 8
            image = Image.fromarray((np.asarray(image) // 256).astype(np.uint8))
        return ImageOps.exif_transpose(image).convert("RGB")


def image_size(path) -> tuple[int, int]:
    """(width, height) of a picture, upright, after reading all of its file. ImageError as above."""
    with open_image(path) as image:
        size = image.size
        if image.format == "PNG" and "exif" not in image.info:
            image.verify()  # a PNG has checksums, which is faster than decoding it
            return size
    return load_image(path).size
