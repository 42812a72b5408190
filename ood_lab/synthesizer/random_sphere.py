"""Control: uniform points on the sphere, which know nothing of the data."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ood_lab.config.ranges import PositiveInt
from ood_lab.geometry.sphere import uniform_on_sphere
from ood_lab.parts import Dimensions, Synthesizer
from ood_lab.types import Outliers


class RandomSphere(Synthesizer):
    """Uniform on the unit sphere.

    Args:
        per_class: points for each ID class.
    """

    def __init__(self, *, per_class: PositiveInt) -> None:
        self.per_class = per_class

    def sample(self, kept: Mapping[str, Tensor], dims: Dimensions, generator: torch.Generator) -> Outliers:
        points = uniform_on_sphere((dims.classes * self.per_class, dims.projection), generator)
        return Outliers(points, torch.full((len(points),), -1, device=points.device), {})
