"""White noise on outlier images."""

from __future__ import annotations

import torch
from torch import Tensor

from ood_lab.config.ranges import NonNegativeFloat
from ood_lab.perturbation.base import Beside, OutlierImages, Perturbation


class GaussianNoise(Perturbation):
    """x + N(0, sigma^2), independent for each value.

    Args:
        sigma: the standard deviation, in units of the images as they are trained on.
        variance: where given, sigma squared: AOE's Eq. 10 states epsilon as one, its code takes it as sigma.
        shared: one picture of noise for all images of a step, as in AOE's code.
    """

    strength = "sigma"

    def __init__(
        self, *, sigma: NonNegativeFloat, variance: NonNegativeFloat | None = None, shared: bool = False
    ) -> None:
        self.sigma, self.shared = sigma if variance is None else variance**0.5, shared

    def __call__(self, images: Tensor, beside: Beside, generator: torch.Generator) -> OutlierImages:
        shape = (1 if self.shared else len(images) * beside.world, *images.shape[1:])
        noise = torch.randn(shape, generator=generator, device=images.device, dtype=images.dtype)
        return OutlierImages(images + self.sigma * (noise if self.shared else noise[beside.rank :: beside.world]))
