"""Control: the midpoints of near class pairs, without any chain."""

from __future__ import annotations

import torch
from torch import Tensor

from ood_lab.config.ranges import PositiveInt
from ood_lab.synthesizer.base import Synthesizer, class_midpoints
from ood_lab.types import Outliers


class Midpoints(Synthesizer):
    """The points from which HamOS starts its chains.

    Args:
        adjacent: near classes paired with each class; clipped to C - 1.
    """

    def __init__(self, *, adjacent: PositiveInt) -> None:
        self.adjacent = adjacent

    def sample(self, bank_CND: Tensor, generator: torch.Generator) -> Outliers:
        points, pairs = class_midpoints(bank_CND, self.adjacent)
        return Outliers(points, pairs[:, 0], {})
