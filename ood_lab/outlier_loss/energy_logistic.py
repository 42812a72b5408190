"""Telling ID rows from outliers by their energy (VOS, Du et al. 2022; BOOD, Eq. 7)."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from ood_lab.config.ranges import NonNegativeInt
from ood_lab.loss.logistic import Reduction, over_both_sides, weighted_energy
from ood_lab.outlier_loss.base import energy_losses, small_network
from ood_lab.parts import Dimensions, Term, View


class EnergyLogistic(Term):
    """Cross-entropy of phi(E), two outputs of the energy: class 1 is ID, class 0 outlier.

    Points of a synthesizer carry no graph: they train phi, the energy's weights and the class head, which train the ID
    rows.

    Args:
        energy: "weighted" learns a weight for each class, which begins in U(0, 1) (VOS's code); "plain" is the
            log-sum-exp (DreamOOD, BOOD).
        hidden: units between energy and the two outputs; 0 is one linear layer (VOS; DreamOOD on CIFAR-100), 512 that
            of DreamOOD on ImageNet-100.
        reduction: see `over_both_sides`.
    """

    reads: ClassVar = ("logits",)
    reads_outliers: ClassVar = ("logits",)

    def __init__(
        self,
        dims: Dimensions,
        *,
        energy: Literal["weighted", "plain"],
        hidden: NonNegativeInt,
        reduction: Reduction,
        **schedule: Any,
    ) -> None:
        super().__init__(dims, **schedule)
        self.reduction = reduction
        self.class_weights = nn.Parameter(torch.rand(dims.classes)) if energy == "weighted" else None
        self.phi = small_network(1, hidden, 2)

    def _losses(self, logits_BC: Tensor, label: int) -> Tensor:
        weights = self.class_weights
        energy = logits_BC.logsumexp(1) if weights is None else weighted_energy(logits_BC, weights)
        return energy_losses(self.phi, energy[:, None], label)

    def loss(self, view: View) -> Tensor:
        sides = self._losses(view.id.class_logits, 1), self._losses(view.outlier_rows.class_logits, 0)
        return over_both_sides(*sides, self.reduction, view.id_share)
