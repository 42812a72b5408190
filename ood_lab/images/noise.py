"""Images of random pixels at one size, resized to another."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def to_images(noise: Tensor, side: int, antialias: bool) -> Tensor:
    """uint8 [N, 3, side, side] from float noise [N, 3, H, W] in 0..1, bilinear.

    Antialiasing averages independent pixels away: from 224 to 32 it leaves a near-grey picture, without it the
    spread stays. Which of the two a torchvision resize does depends on its version.
    """
    if noise.shape[-1] != side:
        noise = F.interpolate(noise, (side, side), mode="bilinear", align_corners=False, antialias=antialias)
    return (noise.clamp(0, 1) * 255).round().to(torch.uint8)
