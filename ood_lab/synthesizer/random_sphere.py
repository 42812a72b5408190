"""Control: uniform points on the sphere, which know nothing of the data."""

from __future__ import annotations

import torch
from torch import Tensor

from ood_lab.config.ranges import PositiveInt
from ood_lab.sphere import uniform_on_sphere
from ood_lab.synthesizer.base import Synthesizer
from ood_lab.types import Outliers


class RandomSphere(Synthesizer):
    """Uniform on the unit sphere.

    Args:
        per_class: points for each ID class.
    """

    def __init__(self, *, per_class: PositiveInt) -> None:
        self.per_class = per_class

    def sample(self, bank_CND: Tensor, generator: torch.Generator) -> Outliers:
        classes, _, dim = bank_CND.shape
        points = uniform_on_sphere((classes * self.per_class, dim), generator).to(bank_CND)
        return Outliers(points, torch.full((len(points),), -1, device=bank_CND.device), {})
