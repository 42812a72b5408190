"""A detector whose OOD images an attacker has changed so that they pass for ID: how robust it is (AOE, Figure 6)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from ood_lab.config.ranges import NonNegativeFloat
from ood_lab.loss.energy import energy
from ood_lab.scorer.base import InputScorer
from ood_lab.scorer.msp import uncertainty
from ood_lab.types import FeatureSet


class Attacked(InputScorer):
    """The scores of a detector of logits on x' = x + epsilon sign(d L_OE / dx): one step that raises L_OE.

    L_OE = log sum_c exp f_c - mean_c f_c, the loss of Outlier Exposure. OOD images are attacked, ID images are not:
    AOE's text; its code attacks both, and takes class 1 as the target of all. epsilon is in units of pixels in 0..1,
    and pixels are not cut to that range; with 0 nothing is changed.

    Args:
        epsilon: the attacker's budget.
        of: whose scores: "energy" or "msp".
    """

    by_name_only = True
    changes_id = False

    def __init__(self, *, epsilon: NonNegativeFloat, of: Literal["energy", "msp"]) -> None:
        self.epsilon, self.of = epsilon, of

    def objective(self, outputs: dict[str, Tensor]) -> Tensor:
        logits = outputs["logits"]
        return logits.logsumexp(1) - logits.mean(1)

    def change(self) -> str:
        return f"attacked epsilon={self.epsilon}"

    def _score(self, data: FeatureSet) -> Tensor:
        logits = data.logits.double()
        return energy(logits) if self.of == "energy" else uncertainty(logits)
