"""Control: the midpoints of near class pairs, without any chain."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from ood_lab.config.ranges import PositiveInt
from ood_lab.synthesizer.base import FromBank, class_midpoints
from ood_lab.types import Outliers


class Midpoints(FromBank):
    """The points from which HamOS starts its chains.

    Args:
        adjacent: near classes paired with each class; clipped to C - 1.
        bank: see `FromBank`.
    """

    least_classes: ClassVar = 2

    def __init__(self, *, adjacent: PositiveInt, **bank: Any) -> None:
        super().__init__(**bank)
        self.adjacent = adjacent

    def draw(self, bank_CND: Tensor, generator: torch.Generator) -> Outliers:
        points, pairs = class_midpoints(bank_CND, self.adjacent)
        return Outliers(points, pairs[:, 0], {})
