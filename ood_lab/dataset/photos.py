"""Crops of the photographs that ship with scikit-learn: far-OOD for digits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from ood_lab.config.ranges import NonNegativeInt, PositiveInt
from ood_lab.dataset.base import SIDE, ImageSet, Split, stack, unlabelled
from ood_lab.types import Images

SIDES = (48, 160)  # of a crop, before it is resized to 32


@dataclass(kw_only=True)
class Photos(ImageSet):
    """Square crops at random places and scales, in colour.

    Args:
        count: images.
        seed: of the draws; the set does not depend on a run's seed.
    """

    count: PositiveInt
    seed: NonNegativeInt

    def load(self, split: Split) -> Images:
        from sklearn.datasets import load_sample_images

        photographs = [Image.fromarray(array) for array in load_sample_images().images]
        random = np.random.default_rng(self.seed)

        def crop(index: int) -> Image.Image:
            photograph = photographs[index % len(photographs)]
            side = int(random.integers(*SIDES))
            left = int(random.integers(photograph.width - side))
            top = int(random.integers(photograph.height - side))
            box = (left, top, left + side, top + side)
            return photograph.crop(box).resize((SIDE, SIDE), Image.Resampling.BILINEAR)

        return unlabelled(stack(crop(i) for i in range(self.count)))
