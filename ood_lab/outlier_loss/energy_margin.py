"""Energies pushed to either side of two margins (Liu et al. 2020; GReg, Eq. 1)."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from ood_lab.loss.energy import energy, energy_margin
from ood_lab.parts import Dimensions, Term, View


class EnergyMargin(Term):
    """Squared hinges on the energies of ID images and of outliers, each a mean over its own side.

    Args:
        m_in, m_out: ID energies are pushed below the first, those of outliers above the second. Liu et al.'s scripts
            have -23 and -5 (CIFAR-10), -27 and -5 (CIFAR-100); GReg's and POEM's code -25 and -7 for every set.
    """

    reads: ClassVar = ("logits",)
    reads_outliers: ClassVar = ("logits",)
    at_most: ClassVar = (("m_in", "m_out"),)

    def __init__(self, dims: Dimensions, *, m_in: float, m_out: float, **schedule: Any) -> None:
        super().__init__(dims, **schedule)
        self.m_in, self.m_out = m_in, m_out

    def loss(self, view: View) -> Tensor:
        id_energy, ood_energy = energy(view.id.class_logits), energy(view.outlier_rows.class_logits)
        return energy_margin(id_energy, ood_energy, self.m_in, self.m_out)
