"""A linear head whose energy has a learned weight for each class (ARES, Eq. 12; VOS)."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from ood_lab.head.base import Head
from ood_lab.loss.logistic import weighted_energy


class WeightedEnergy(Head):
    """E = -log sum_c w_c e^{f_c}, given as "energy" [B, 1] to terms and detectors.

    The paper's Eq. 12 lacks the class index of f. A weight stays above zero by ReLU and begins in U(0, 1), as in VOS's
    code. Weights are trained by terms that read "energy", and by nothing else.

    Args:
        weights: "learned", or all 1 ("none": the plain energy).
    """

    gives: ClassVar[tuple[str, ...]] = ("energy",)
    adds: ClassVar[tuple[str, ...]] = ("energy",)
    trained_through: ClassVar[tuple[tuple[str, str], ...]] = (("energy", "energy"),)

    def __init__(
        self,
        width: int,
        projects: bool,
        classes: int,
        *,
        weights: Literal["learned", "none"] = "learned",
        **options: Any,
    ) -> None:
        super().__init__(width, projects, classes, **options)
        self.class_weights = nn.Parameter(torch.rand(classes)) if weights == "learned" else None

    def energy(self, logits_BC: Tensor) -> Tensor:
        """E [B, 1] in float32."""
        logits_BC = logits_BC.float()
        weights = self.class_weights
        found = logits_BC.logsumexp(1) if weights is None else weighted_energy(logits_BC, weights)
        return -found[:, None]

    @staticmethod
    def owner(parameter: str) -> str:
        return "energy" if parameter == "class_weights" else Head.owner(parameter)

    def trained(self, features_BD: Tensor, outputs: Tensor) -> dict[str, Tensor]:
        return {"logits": outputs, "energy": self.energy(outputs)}

    def tested(self, features_BD: Tensor, outputs: Tensor) -> dict[str, Tensor]:
        return {"logits": outputs, "energy": self.energy(outputs)}
