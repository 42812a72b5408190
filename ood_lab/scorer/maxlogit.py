"""Largest logit (Hendrycks et al. 2022)."""

from __future__ import annotations

from torch import Tensor

from ood_lab.scorer.base import Scorer
from ood_lab.types import FeatureSet


class MaxLogit(Scorer):
    """score = -max_c logit_c. OpenOOD's `mls` is its negative."""

    def _score(self, data: FeatureSet) -> Tensor:
        return -data.logits.amax(1)
