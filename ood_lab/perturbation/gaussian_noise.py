"""White noise on outlier images."""

from __future__ import annotations

import torch
from torch import Tensor

from ood_lab.config.ranges import NonNegativeFloat
from ood_lab.network import Network
from ood_lab.perturbation.base import Perturbation


class GaussianNoise(Perturbation):
    """x + N(0, sigma^2), independent for each value.

    Args:
        sigma: in units of the normalised images.
    """

    def __init__(self, *, sigma: NonNegativeFloat) -> None:
        self.sigma = sigma

    def __call__(self, images: Tensor, network: Network, generator: torch.Generator) -> Tensor:
        noise = torch.randn(images.shape, generator=generator, device=images.device, dtype=images.dtype)
        return images + self.sigma * noise
