"""Energy of features clipped at a percentile of the training activations (Sun et al. 2021)."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from ood_lab.config.ranges import Percentile
from ood_lab.scorer.base import HeadScorer
from ood_lab.types import FeatureSet


class ReAct(HeadScorer):
    """score = energy of W min(x, c) + b, c the `percentile` of all training activations.

    OpenOOD takes the percentile over validation activations.

    Args:
        percentile: 90 in the paper.
    """

    def __init__(self, *, percentile: Percentile) -> None:
        self.percentile = percentile

    def _fit(self, train: FeatureSet, val: FeatureSet | None) -> None:
        self.threshold = float(np.percentile(train.features.numpy(), self.percentile))

    def _score(self, data: FeatureSet) -> Tensor:
        return self.energy(data.features.clamp(max=self.threshold))
