"""Generated fractals, as an auxiliary, mixing or OOD set."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ood_lab.config.ranges import NonNegativeInt, PositiveInt
from ood_lab.dataset.base import ImageSet, Split, unlabelled
from ood_lab.images.fractal import BLOCK, block
from ood_lab.progress import track
from ood_lab.types import Images


@dataclass(kw_only=True)
class Fractals(ImageSet):
    """Pictures of random iterated function systems, see `ood_lab.images.fractal`.

    Args:
        count: images.
        native_side: at which they are drawn, about 6 ms of CPU time each at 32 and four times that at 64.
        seed: of the draws; the set does not depend on a run's seed.
    """

    count: PositiveInt
    native_side: PositiveInt
    seed: NonNegativeInt

    def load(self, split: Split) -> Images:
        del split  # one set for all purposes
        blocks = range(-(-self.count // BLOCK))
        drawn = [block(number, self.native_side, self.seed) for number in track(blocks, "draw fractals")]
        return unlabelled(torch.cat(drawn)[: self.count])
