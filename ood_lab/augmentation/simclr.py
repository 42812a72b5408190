"""Random resized crop, flip, colour jitter and grey for a whole batch at once, each row with its own draws.

The chain of the contrastive methods (SimCLR; CIDER and HamOS releases): torchvision's operators and ranges, here as
one bilinear resampling and a few tensor operations for the batch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ood_lab.augmentation.base import Augmentation
from ood_lab.config.ranges import Fraction, NonNegativeFloat, PositiveFloat
from ood_lab.random import Draws, uniform

LUMA = (0.2989, 0.587, 0.114)  # ITU-R 601, as torchvision's rgb_to_grayscale


def box_draws(rows: int, scale: list[float], ratio: list[float], generator: torch.Generator) -> Draws:
    """Area and log-aspect as torchvision draws them, and where in the room that is left the box lies, each [B].

    torchvision draws up to ten times until a box fits and rounds it to pixels; here the aspect is cut to what fits the
    area, and boxes are not rounded.
    """
    return {
        "area": uniform(rows, scale[0], scale[1], generator),
        "log_ratio": uniform(rows, math.log(ratio[0]), math.log(ratio[1]), generator),
        "top": uniform(rows, 0, 1, generator),
        "left": uniform(rows, 0, 1, generator),
    }


def crop_boxes(draws: Draws, aspect: Tensor | float = 1.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Boxes (top, left, height, width), each [B], as shares of pictures of the given aspect (width / height)."""
    area = draws["area"]
    # Height and width share sqrt(area / r) and sqrt(area * r) with r = ratio / aspect; both <= 1 bounds |log r|.
    fits = -area.log()
    log_ratio = draws["log_ratio"] - torch.as_tensor(aspect, dtype=area.dtype, device=area.device).log()
    log_ratio = log_ratio.clamp(-fits, fits)
    height = (area / log_ratio.exp()).sqrt().clamp(max=1)
    width = (area * log_ratio.exp()).sqrt().clamp(max=1)
    return draws["top"] * (1 - height), draws["left"] * (1 - width), height, width


def _interpolation(start: Tensor, extent: Tensor, side: int, mirrored: Tensor | None = None) -> Tensor:
    """Bilinear weights [B, side, side]: row i holds what output pixel i takes from each input pixel."""
    position = torch.arange(side, device=start.device) + 0.5
    centre = (start[:, None] + extent[:, None] * position / side) * side - 0.5
    if mirrored is not None:
        centre = torch.where(mirrored[:, None], centre.flip(1), centre)
    # Clamp to the box, as cropping first and resizing then does.
    first, last = start[:, None] * side, (start + extent)[:, None] * side - 1
    centre = centre.clamp(first.expand_as(centre), last.clamp(min=0).expand_as(centre))
    grid = torch.arange(side, device=start.device)
    return (1 - (centre[:, :, None] - grid).abs()).clamp_(min=0)


def resized_crop(images: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor, mirrored: Tensor) -> Tensor:
    """Resample each box [B] (shares of the image) to the full square, mirrored where asked.

    Bilinear without antialiasing. Separable, hence two small matrix products instead of a scattered `grid_sample`.

    Args:
        images: float [B, 3, S, S].
    """
    side = images.shape[-1]
    rows_BSS = _interpolation(top, height, side)
    cols_BSS = _interpolation(left, width, side, mirrored)
    return rows_BSS[:, None] @ images @ cols_BSS.transpose(1, 2)[:, None]


def grey(images: Tensor) -> Tensor:
    """Luma [B, 1, H, W]."""
    weights = images.new_tensor(LUMA).view(1, 3, 1, 1)
    return (images * weights).sum(1, keepdim=True)


def blend(images: Tensor, other: Tensor | float, factor: Tensor) -> Tensor:
    """factor * images + (1 - factor) * other, clipped to [0, 1]; factor [B]."""
    f = factor.view(-1, 1, 1, 1)
    return (f * images + (1 - f) * other).clamp_(0, 1)


def rotate_hue(images: Tensor, turn: Tensor) -> Tensor:
    """Shift the hue by `turn` [B] of a full circle at constant HSV saturation and value."""
    high, low = images.amax(1), images.amin(1)
    chroma = high - low
    safe = chroma.clamp(min=1e-8)
    r, g, b = images.unbind(1)
    hue = torch.where(high == r, ((g - b) / safe) % 6, torch.where(high == g, (b - r) / safe + 2, (r - g) / safe + 4))
    hue = (hue + 6 * turn.view(-1, 1, 1)) % 6
    # HSV to RGB without branches: each channel is value - chroma * clamp(min(k, 4 - k), 0, 1), k = (n + hue) mod 6.
    channels = []
    for n in (5, 3, 1):
        k = (n + hue) % 6
        channels.append(high - chroma * torch.minimum(k, 4 - k).clamp(0, 1))
    return torch.stack(channels, 1)


class SimCLR(Augmentation):
    """The strong augmentation of contrastive training.

    Args:
        scale: smallest and largest share of the area that a crop keeps.
        ratio: smallest and largest aspect ratio.
        flip: probability of mirroring.
        jitter: probability of the four colour changes (all or none, in a fixed order; torchvision shuffles them).
        brightness, contrast, saturation: factor drawn from 1 - x .. 1 + x.
        hue: turn drawn from -x .. x of a full circle.
        grey: probability of losing colour.
    """

    def __init__(
        self,
        *,
        scale: list[PositiveFloat],
        ratio: list[PositiveFloat],
        flip: Fraction,
        jitter: Fraction,
        brightness: NonNegativeFloat,
        contrast: NonNegativeFloat,
        saturation: NonNegativeFloat,
        hue: Fraction,
        grey: Fraction,
    ) -> None:
        self.scale, self.ratio, self.flip, self.jitter = scale, ratio, flip, jitter
        self.brightness, self.contrast, self.saturation, self.hue = brightness, contrast, saturation, hue
        self.grey = grey

    crops = True

    def draw(self, rows: int, generator: torch.Generator) -> Draws:
        def spread(value: float) -> Tensor:
            return uniform(rows, max(0.0, 1 - value), 1 + value, generator)

        return {
            **box_draws(rows, self.scale, self.ratio, generator),
            "mirrored": uniform(rows, 0, 1, generator) < self.flip,
            "jittered": uniform(rows, 0, 1, generator) < self.jitter,
            "brightness": spread(self.brightness),
            "contrast": spread(self.contrast),
            "saturation": spread(self.saturation),
            "hue": uniform(rows, -self.hue, self.hue, generator),
            "greyed": uniform(rows, 0, 1, generator) < self.grey,
        }

    def apply(self, pixels: Tensor, draws: Draws, cropped: bool = False) -> Tensor:
        d = {name: values.to(pixels.device) for name, values in draws.items()}
        images = pixels.float().div_(255)
        if cropped:
            images = torch.where(d["mirrored"].view(-1, 1, 1, 1), images.flip(3), images)
        else:
            images = resized_crop(images, *crop_boxes(d), d["mirrored"])
        rows = d["jittered"].nonzero().squeeze(1)
        images[rows] = jittered(images[rows], *(d[k][rows] for k in ("brightness", "contrast", "saturation", "hue")))
        rows = d["greyed"].nonzero().squeeze(1)
        images[rows] = grey(images[rows]).expand(-1, 3, -1, -1)
        return images


def jittered(images: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor, turn: Tensor) -> Tensor:
    """The four colour changes, one after the other; a factor or turn [B] for each row."""
    images = blend(images, 0.0, brightness)
    images = blend(images, grey(images).mean((2, 3), keepdim=True), contrast)
    images = blend(images, grey(images), saturation)
    return rotate_hue(images, turn)
