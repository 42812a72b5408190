"""From a picture of any size to the square that a network sees, in uint8: the chains that test protocols use."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ood_lab.config.schema import Chain
from ood_lab.errors import RunError


@dataclass(frozen=True)
class Transform:
    """One chain at one size. Each equals torchvision's operators on PIL images, pixel for pixel.

    Args:
        chain: "short_side": Resize(resize), CenterCrop(side), as OpenOOD and the classic protocol;
            "center_crop": CenterCrop(side) alone, zeros where the picture is smaller (DOS and GReg on cropped sets);
            "squash": Resize((side, side)), the aspect ratio is lost (pytorch-ood's stock transform);
            "squash_aliased": the same without antialiasing, as older torchvision resized tensors (AOE's release);
            "as_is": the picture must have the size already.
        resize: short side before the crop.
        side: of the result.
    """

    chain: Chain
    resize: int
    side: int

    def __call__(self, image: Image.Image, origin: str = "image") -> NDArray[np.uint8]:
        """uint8 [side, side, 3] from an RGB picture.

        Raises:
            RunError: "as_is" and another size; `origin` is named.
        """
        if self.chain == "short_side":
            image = center_crop(resize_short(image, self.resize), self.side)
        elif self.chain == "center_crop":
            image = center_crop(image, self.side)
        elif self.chain == "squash" and image.size != (self.side, self.side):
            image = image.resize((self.side, self.side), Image.Resampling.BILINEAR)
        elif self.chain == "squash_aliased":
            return resize_aliased(np.asarray(image), self.side)
        elif image.size != (self.side, self.side):
            width, height = image.size
            raise RunError(f"{origin}: {width}x{height} where transform=as_is needs {self.side}x{self.side}")
        return np.asarray(image)

    def keeps(self, height: int, width: int) -> bool:
        """Whether pictures of this size pass unchanged."""
        return height == width == self.side and (self.chain != "short_side" or self.resize == self.side)


def resize_short(image: Image.Image, size: int) -> Image.Image:
    """Short side to `size`, bilinear with PIL's antialiasing; the long side is cut to whole pixels, as torchvision."""
    width, height = image.size
    short, long = min(width, height), max(width, height)
    if short == size:
        return image
    other = int(size * long / short)
    target = (size, other) if width <= height else (other, size)
    return image.resize(target, Image.Resampling.BILINEAR)


def center_crop(image: Image.Image, side: int) -> Image.Image:
    """The middle square, padded with zeros where the picture is smaller.

    An odd margin is halved as torchvision does: rounded to even for a crop, the smaller half first for a padding.
    """
    width, height = image.size
    if width < side or height < side:
        left, top = max(0, (side - width) // 2), max(0, (side - height) // 2)
        right, bottom = max(0, (side - width + 1) // 2), max(0, (side - height + 1) // 2)
        image = image.crop((-left, -top, width + right, height + bottom))
        width, height = image.size
    if (width, height) == (side, side):
        return image
    left, top = round((width - side) / 2), round((height - side) / 2)
    return image.crop((left, top, left + side, top + side))


def resize_aliased(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Bilinear at half-pixel centres, each output pixel from four input pixels however large the picture is."""
    rows = _weights(pixels.shape[0], side)
    columns = _weights(pixels.shape[1], side)
    y0, y1, fy = rows
    x0, x1, fx = columns
    image = pixels.astype(np.float64)
    upper = image[y0][:, x0] * (1 - fx)[None, :, None] + image[y0][:, x1] * fx[None, :, None]
    lower = image[y1][:, x0] * (1 - fx)[None, :, None] + image[y1][:, x1] * fx[None, :, None]
    return np.rint(upper * (1 - fy)[:, None, None] + lower * fy[:, None, None]).astype(np.uint8)


def _weights(size: int, side: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    position = np.clip((np.arange(side) + 0.5) * size / side - 0.5, 0, None)
    first = np.minimum(position.astype(np.int64), size - 1)
    return first, np.minimum(first + 1, size - 1), position - first
