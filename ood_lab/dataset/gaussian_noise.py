"""Gaussian pixel noise."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ood_lab.config.ranges import NonNegativeInt, PositiveFloat, PositiveInt
from ood_lab.dataset.base import SIDE, ImageSet, Split, unlabelled
from ood_lab.random import generator
from ood_lab.types import Images


@dataclass(kw_only=True)
class GaussianNoise(ImageSet):
    """Each channel of each pixel N(0.5, sigma), clipped to [0, 1].

    Args:
        count: images.
        sigma: standard deviation on the 0..1 scale.
        seed: of the draws; the set does not depend on a run's seed.
    """

    count: PositiveInt
    sigma: PositiveFloat
    seed: NonNegativeInt

    def load(self, split: Split) -> Images:
        draw = generator("gaussian_noise", self.seed)
        noise = 0.5 + self.sigma * torch.randn(self.count, 3, SIDE, SIDE, generator=draw)
        return unlabelled((noise.clamp(0, 1) * 255).round().to(torch.uint8))
