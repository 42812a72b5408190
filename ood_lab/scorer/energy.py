"""Free energy of the logits (Liu et al. 2020; HamOS, Eq. 17)."""

from __future__ import annotations

from torch import Tensor

from ood_lab.config.ranges import PositiveFloat
from ood_lab.scorer.base import Scorer
from ood_lab.types import FeatureSet


class Energy(Scorer):
    """score = -T log sum_c exp(logit_c / T).

    Args:
        temperature: T; 1 in the papers.
    """

    def __init__(self, *, temperature: PositiveFloat) -> None:
        self.temperature = temperature

    def _score(self, data: FeatureSet) -> Tensor:
        return -self.temperature * (data.logits / self.temperature).logsumexp(1)
