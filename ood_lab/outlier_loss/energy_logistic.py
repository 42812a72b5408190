"""Telling ID rows from outliers by their energy (VOS, Du et al. 2022; BOOD, Eq. 7)."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from ood_lab.config.ranges import NonNegativeInt
from ood_lab.loss.logistic import Reduction, over_both_sides, weighted_energy
from ood_lab.outlier_loss.base import Rising, energy_losses, small_network
from ood_lab.parts import Dimensions, Term, View

REACH = 10.0  # log-sum-exps between which phi's slope is taken


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
        slope: of phi. "free": any, as in the codes. From scratch phi may settle so that rows of low log-sum-exp are
            called ID, and the energy as a detector is then reversed. "rising": weights enter by their absolute values,
            so that a higher log-sum-exp is never less ID.
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
        slope: Literal["free", "rising"] = "free",
        **schedule: Any,
    ) -> None:
        super().__init__(dims, **schedule)
        self.reduction = reduction
        self.class_weights = nn.Parameter(torch.rand(dims.classes)) if energy == "weighted" else None
        self.phi = Rising(hidden) if slope == "rising" else small_network(1, hidden, 2)

    @torch.no_grad()
    def phi_slope(self) -> float:
        """How much more ID a row is called per unit of log-sum-exp, on average from -10 to 10."""
        ends = torch.tensor([[-REACH], [REACH]]).to(next(self.phi.parameters()))
        outlier, of_id = self.phi(ends).T
        return float((of_id - outlier).diff()) / (2 * REACH)

    def remark(self) -> str:
        if self.phi_slope() >= 0:
            return ""
        return (
            "phi calls rows of low log-sum-exp ID. If the term has shaped the energies, these are the wrong way round, "
            "and the energy's AUROC is below 50: outlier_loss.slope=rising prevents it"
        )

    def _losses(self, logits_BC: Tensor, label: int) -> Tensor:
        weights = self.class_weights
        energy = logits_BC.logsumexp(1) if weights is None else weighted_energy(logits_BC, weights)
        return energy_losses(self.phi, energy[:, None], label)

    def loss(self, view: View) -> Tensor:
        sides = self._losses(view.id.class_logits, 1), self._losses(view.outlier_rows.class_logits, 0)
        return over_both_sides(*sides, self.reduction, view.id_share)
