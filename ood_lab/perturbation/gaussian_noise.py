"""White noise on outlier images."""

from __future__ import annotations

import torch
from torch import Tensor

from ood_lab.config.ranges import NonNegativeFloat
from ood_lab.perturbation.base import Beside, OutlierImages, Perturbation


class GaussianNoise(Perturbation):
    """x + N(0, sigma^2), independent for each value.

    Args:
        sigma: in units of the normalised images.
    """

    def __init__(self, *, sigma: NonNegativeFloat) -> None:
        self.sigma = sigma

    def __call__(self, images: Tensor, beside: Beside, generator: torch.Generator) -> OutlierImages:
        shape = (len(images) * beside.world, *images.shape[1:])
        noise = torch.randn(shape, generator=generator, device=images.device, dtype=images.dtype)
        return OutlierImages(images + self.sigma * noise[beside.rank :: beside.world])
