"""Energy with only the weights that contribute most (Sun & Li 2022)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ood_lab.config.ranges import Percentile
from ood_lab.scorer.base import HeadScorer
from ood_lab.types import FeatureSet


class DICE(HeadScorer):
    """score = energy of (W * M) x + b; M keeps the entries of W whose mean contribution W_cd E[x_d] is largest.

    Args:
        percentile: of the contributions below which a weight is dropped; 90 in the paper.
    """

    def __init__(self, *, percentile: Percentile) -> None:
        self.percentile = percentile

    def _fit(self, train: FeatureSet, val: FeatureSet | None) -> None:
        weight = self.head.weight
        contribution = weight * train.features.mean(0)
        threshold = float(np.percentile(contribution.numpy(), self.percentile))
        self.sparse = torch.where(contribution > threshold, weight, torch.zeros_like(weight))

    def _score(self, data: FeatureSet) -> Tensor:
        return self.energy(data.features, self.sparse)
