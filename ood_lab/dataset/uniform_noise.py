"""Uniform pixel noise."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ood_lab.config.ranges import Fraction, NonNegativeInt, PositiveInt
from ood_lab.dataset.base import SIDE, ImageSet, Split, unlabelled
from ood_lab.images.noise import to_images
from ood_lab.random import generator
from ood_lab.types import Images


@dataclass(kw_only=True)
class UniformNoise(ImageSet):
    """Each channel of each pixel U(low, high).

    Args:
        count: images.
        low, high: on the 0..1 scale.
        noise_side: at which the pixels are drawn, before they are resized to 32.
        antialias: of that resize.
        seed: of the draws; the set does not depend on a run's seed.
    """

    count: PositiveInt
    low: Fraction
    high: Fraction
    noise_side: PositiveInt
    antialias: bool
    seed: NonNegativeInt

    def load(self, split: Split) -> Images:
        del split  # one set for all purposes
        draw = generator("uniform_noise", self.seed)
        noise = torch.rand(self.count, 3, self.noise_side, self.noise_side, generator=draw)
        return unlabelled(to_images(self.low + (self.high - self.low) * noise, SIDE, self.antialias))
