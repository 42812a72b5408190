"""Entropy of the softmax."""

from __future__ import annotations

from torch import Tensor

from ood_lab.scorer.base import Scorer
from ood_lab.types import FeatureSet


class Entropy(Scorer):
    """score = -sum_c p_c log p_c, in float64."""

    def _score(self, data: FeatureSet) -> Tensor:
        log_p = data.logits.double().log_softmax(1)
        return -(log_p.exp() * log_p).sum(1)
