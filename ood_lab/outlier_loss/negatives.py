"""Outliers as further negatives of each ID row."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from ood_lab.loss.ood_discernment import negatives
from ood_lab.outlier_loss.base import Discernment
from ood_lab.parts import View


class Negatives(Discernment):
    """Each ID row against its own (detached) prototype and all outliers."""

    reads: ClassVar = ("z", "prototypes")

    def loss(self, view: View) -> Tensor:
        prototypes = view.kept["prototypes"].detach()
        return negatives(view.id.z, view.labels, view.outlier_rows.z, prototypes, self.temperature)
