"""Pillow's operations on batches of images, as PixMix and AutoAugment use them. Shape: B images.

Images are float [B, 3, H, W] in [0, 1]; operations that work on the 256 levels of a byte round to them first. A number
for each image [B] says how strongly it is changed.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

LUMA = (0.299, 0.587, 0.114)


def _levels(images: Tensor) -> Tensor:
    return images.mul(255).round_().clamp_(0, 255)


def _each(values_B: Tensor) -> Tensor:
    return values_B.view(-1, 1, 1, 1)


def autocontrast(images: Tensor) -> Tensor:
    """Stretch each channel to the whole range; one of a single value stays."""
    levels = _levels(images)
    low, high = levels.amin((2, 3), keepdim=True), levels.amax((2, 3), keepdim=True)
    stretched = ((levels - low) * (255 / (high - low).clamp(min=1))).floor()
    return torch.where(high > low, stretched, levels).clamp_(0, 255) / 255


def equalize(images: Tensor) -> Tensor:
    """Map each channel's levels so that they are as evenly used as possible."""
    levels = _levels(images).long().flatten(2)
    counts = torch.zeros(*levels.shape[:2], 256, dtype=torch.int64, device=images.device)
    counts.scatter_add_(2, levels, torch.ones_like(levels))
    pixels = levels.shape[2]
    step = (pixels - counts.gather(2, levels.amax(2, keepdim=True))) // 255  # without the highest level that is used
    table = (step // 2 + counts.cumsum(2) - counts) // step.clamp(min=1)
    table = torch.where(step > 0, table.clamp(max=255), torch.arange(256, device=images.device))
    return table.gather(2, levels).view_as(images).to(images.dtype) / 255


def posterize(images: Tensor, bits_B: Tensor) -> Tensor:
    """Keep so many of the eight bits of each value."""
    step = _each(2.0 ** (8 - bits_B)).to(images.dtype)
    return (_levels(images) / step).floor() * step / 255


def solarize(images: Tensor, threshold_B: Tensor) -> Tensor:
    """Invert the values from a threshold of 0 to 256 on."""
    levels = _levels(images)
    return torch.where(levels < _each(threshold_B), levels, 255 - levels) / 255


def affine(images: Tensor, matrices_B23: Tensor) -> Tensor:
    """Bilinear samples at (a x + b y + c, d x + e y + f), where pixels are squares of side 1; black outside.

    Args:
        matrices_B23: a, b, c and d, e, f of each image, from the output's coordinates to the input's, as Pillow has it.
    """
    height, width = images.shape[2:]
    x = torch.arange(width, device=images.device, dtype=images.dtype) + 0.5
    y = torch.arange(height, device=images.device, dtype=images.dtype) + 0.5
    grid = torch.stack((x.expand(height, width), y[:, None].expand(height, width), torch.ones_like(images[0, 0])), -1)
    source = torch.einsum("hwk,bjk->bhwj", grid, matrices_B23.to(images.dtype))
    size = images.new_tensor([width, height])
    sampled = F.grid_sample(images, 2 * source / size - 1, "bilinear", "border", align_corners=False)
    inside = ((source >= 0) & (source < size)).all(-1)
    return sampled * inside[:, None]


def _matrices(images: Tensor, **entries: Tensor) -> Tensor:
    """The identity with some entries for each image [B, 2, 3]."""
    found = torch.eye(2, 3, device=images.device, dtype=images.dtype).repeat(len(images), 1, 1)
    for name, values in entries.items():
        row, column = divmod("abcdef".index(name), 3)
        found[:, row, column] = values.to(images.dtype)
    return found


def rotate(images: Tensor, degrees_B: Tensor) -> Tensor:
    """Turn counterclockwise around the centre."""
    angle = -torch.deg2rad(degrees_B).to(images.dtype)
    cos, sin = angle.cos(), angle.sin()
    x, y = images.shape[3] / 2, images.shape[2] / 2
    turned = _matrices(images, a=cos, b=sin, c=x - cos * x - sin * y, d=-sin, e=cos, f=y + sin * x - cos * y)
    return affine(images, turned)


def shear_x(images: Tensor, shear_B: Tensor) -> Tensor:
    """Shift each row by so much of its distance from the top."""
    return affine(images, _matrices(images, b=shear_B))


def shear_y(images: Tensor, shear_B: Tensor) -> Tensor:
    """Shift each column by so much of its distance from the left."""
    return affine(images, _matrices(images, d=shear_B))


def translate_x(images: Tensor, pixels_B: Tensor) -> Tensor:
    """Shift to the left by so many pixels."""
    return affine(images, _matrices(images, c=pixels_B))


def translate_y(images: Tensor, pixels_B: Tensor) -> Tensor:
    """Shift up by so many pixels."""
    return affine(images, _matrices(images, f=pixels_B))


def _grey(images: Tensor) -> Tensor:
    return (images * images.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)


def _blended(plain: Tensor, images: Tensor, factor_B: Tensor) -> Tensor:
    return torch.lerp(plain.expand_as(images), images, _each(factor_B).to(images.dtype)).clamp_(0, 1)


def colour(images: Tensor, factor_B: Tensor) -> Tensor:
    """Of the colours so large a share: 0 is grey, 1 changes nothing."""
    return _blended(_grey(images), images, factor_B)


def contrast(images: Tensor, factor_B: Tensor) -> Tensor:
    """Of the contrast so large a share: 0 is the mean of the grey image."""
    return _blended(_grey(images).mean((2, 3), keepdim=True), images, factor_B)


def brightness(images: Tensor, factor_B: Tensor) -> Tensor:
    """Of the brightness so large a share: 0 is black."""
    return _blended(torch.zeros_like(images[:, :1]), images, factor_B)


def sharpness(images: Tensor, factor_B: Tensor) -> Tensor:
    """Of the sharpness so large a share: 0 is smoothed by a 3 x 3 filter; the outermost pixels stay."""
    kernel = images.new_ones(3, 3)
    kernel[1, 1] = 5
    kernel = (kernel / 13).expand(3, 1, 3, 3)
    smooth = images.clone()
    smooth[:, :, 1:-1, 1:-1] = F.conv2d(images, kernel, groups=3)
    return _blended(smooth, images, factor_B)
