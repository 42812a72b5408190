"""Telling ID rows from outliers by the energy of head=weighted_energy (ARES, Table 3: CE)."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from ood_lab.config.ranges import NonNegativeInt
from ood_lab.loss.logistic import Reduction, over_both_sides
from ood_lab.outlier_loss.base import energy_losses, small_network
from ood_lab.parts import Dimensions, Term, View


class WeightedEnergyLogistic(Term):
    """`energy_logistic` (VOS) on an energy whose weights belong to the head, so that a detector can score by it.

    Args:
        hidden, reduction: see `EnergyLogistic`.
    """

    reads: ClassVar[tuple[str, ...]] = ("energy",)
    reads_outliers: ClassVar[tuple[str, ...]] = ("energy",)

    def __init__(self, dims: Dimensions, *, hidden: NonNegativeInt, reduction: Reduction, **schedule: Any) -> None:
        super().__init__(dims, **schedule)
        self.reduction = reduction
        self.phi = small_network(1, hidden, 2)

    def loss(self, view: View) -> Tensor:
        sides = energy_losses(self.phi, -view.id.energy, 1), energy_losses(self.phi, -view.outlier_rows.energy, 0)
        return over_both_sides(*sides, self.reduction, view.id_share)
