"""Energy of features clipped at a percentile of the training activations (Sun et al. 2021)."""

from __future__ import annotations

from typing import Self

import numpy as np
from torch import Tensor

from ood_lab.config.ranges import Percentile
from ood_lab.scorer.base import HeadScorer
from ood_lab.types import FeatureSet, LinearHead


class ReAct(HeadScorer):
    """score = energy of W min(x, c) + b, c the `percentile` of all training activations.

    OpenOOD takes the percentile over validation activations.

    Args:
        percentile: 90 in the paper.
    """

    def __init__(self, *, percentile: Percentile) -> None:
        self.percentile = percentile

    def fit(self, train: FeatureSet, head: LinearHead | None = None, val: FeatureSet | None = None) -> Self:
        super().fit(train, head)
        self.threshold = float(np.percentile(train.features.numpy(), self.percentile))
        return self

    def score(self, data: FeatureSet) -> Tensor:
        _ = self.head  # not fitted is said before the threshold is missed
        return self.energy(data.features.clamp(max=self.threshold))
