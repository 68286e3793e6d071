"""Opening picture files: which formats, which sizes, upright as they were taken, and as RGB."""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from nanoladder.command import UserError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")  # others may start programs, or hang
MAX_FILE_PIXELS = 100_000_000  # a larger file is damaged or hostile
MAX_ASPECT = 200  # the longer side over the shorter one; Qwen2VLImageProcessor's limit
# PIL warns of flaws that it can read past. A filter of each call would not be safe in threads.
warnings.filterwarnings("ignore", module="PIL")


class ImageError(UserError):
    """A picture that cannot be used; its message names the file."""


def load_image(path) -> Image.Image:
    """The picture in a file, upright and as RGB; of an animation the first frame.

    ImageError where there is no such file, or where it is damaged, absurdly large, too narrow for a
    model, or of another format. The content tells the format, whatever the file is called.
    """
    try:
        if not Path(path).is_file():  # a pipe or a device might never end
            raise ImageError(f"{path}: no such image file")
        with Image.open(path, formats=FORMATS) as image:
            check_shape(path, *image.size)
            ImageOps.exif_transpose(image, in_place=True)  # decodes all of the file
            return to_rgb(image)
    except ImageError:
        raise
    except Image.DecompressionBombError:
        raise ImageError(f"{path}: too large to be an image") from None
    except UnidentifiedImageError:
        known = ", ".join(FORMATS)
        raise ImageError(f"{path}: cannot be read as an image (it is none of {known})") from None
    except Exception as error:  # PIL reports damage by errors of many types
        text = getattr(error, "strerror", None) or str(error) or type(error).__name__
        reason = " ".join(text.split())
        raise ImageError(f"{path}: cannot be read as an image ({reason})") from None


def check_shape(path, width, height):
    """ImageError where a picture is absurdly large, or so narrow that no model takes it."""
    shape = f"{path}: {width} x {height} pixels"
    if width * height > MAX_FILE_PIXELS:
        raise ImageError(f"{shape} is too large to be an image")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageError(f"{shape} is too narrow; crop it to an aspect ratio below {MAX_ASPECT}")


def to_rgb(image: Image.Image) -> Image.Image:
    """A PIL image of any mode as RGB; what is transparent becomes white, as in transformers 5.24.

    Of 16 bits a pixel the upper 8 are kept. ValueError for 32 bits, whose range is not known.
    """
    if image.mode == "F" or (image.mode == "I" and image.format != "PNG"):
        raise ValueError("it has 32 bits a pixel and channel; save it with 8 or 16")
    if image.mode.startswith("I"):  # PIL itself would keep the lower 8 bits
        levels = np.asarray(image)
        levels = np.where(levels == image.info.get("transparency", -1), 65535, levels)
        image = Image.fromarray((levels // 256).astype(np.uint8))
    if "A" in image.getbands() or image.info.get("transparency") is not None:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def image_size(path) -> tuple[int, int]:
    """(width, height) of a picture, upright, after decoding its file. ImageError as above."""
    return load_image(path).size
