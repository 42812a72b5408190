"""One picture as RGB, 8 bits a channel: the one way from a file, or from PIL, to pixels."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from ood_lab.errors import RunError

EIGHT_BIT = ("1", "L", "P", "LA", "PA", "La", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB")
SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")
# What Pillow opens in mode "I" although the file holds 16 bits a pixel.
SIXTEEN_BIT_AS_I = ("PNG", "PPM")


def decode(path: Path) -> Image.Image:
    """Read one image file as RGB; see `to_rgb`. Of several frames the first is taken.

    The orientation that EXIF may state is ignored, as torchvision's loaders do.

    Raises:
        RunError: not there, truncated, no image, or of a mode that has no one meaning in 8 bits; the file is named.
    """
    try:
        with Image.open(path) as image:
            return to_rgb(image, str(path))
    except FileNotFoundError:
        raise RunError(f"{path}: no such image. Put the file there, or take it off the list.") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise RunError(f"{path}: not a readable image ({error}). Replace the file, or remove it.") from None


def to_rgb(image: Image.Image, name: str = "image") -> Image.Image:
    """A picture of any mode in RGB, 8 bits a channel.

    Grey and 1-bit pictures are repeated over the channels, palettes looked up, CMYK converted, transparency dropped.
    Of 16 bits the upper 8 are kept (`value // 256`), as Pillow does by itself for colour. 32-bit and float pictures
    have no stated white, so they are refused.

    Args:
        name: of the picture, for messages.

    Raises:
        RunError: another mode; it is named.
    """
    sixteen = image.mode in SIXTEEN_BIT or (image.mode == "I" and image.format in SIXTEEN_BIT_AS_I)
    if sixteen:
        # Pillow's own conversion clips at 255, which turns most of a 16-bit picture white.
        return Image.fromarray((np.asarray(image) // 256).astype(np.uint8)).convert("RGB")
    if image.mode not in EIGHT_BIT:
        bits = {"I": "32 bits", "F": "floats"}.get(image.mode, "an unknown type")
        raise RunError(
            f"{name}: mode {image.mode} ({bits} a pixel) says not which value is white. "
            "Save the picture with 8 or 16 bits a channel."
        )
    with warnings.catch_warnings():
        # Pillow warns of transparency in a palette, which is dropped here like any other.
        warnings.filterwarnings("ignore", message="Palette images with Transparency", category=UserWarning)
        return image.convert("RGB")
