"""Energy with only the weights that contribute most (Sun & Li 2022)."""

from __future__ import annotations

from typing import Self

import numpy as np
import torch
from torch import Tensor

from ood_lab.config.ranges import Percentile
from ood_lab.scorer.base import HeadScorer
from ood_lab.types import FeatureSet, LinearHead


class DICE(HeadScorer):
    """score = energy of (W * M) x + b; M keeps the entries of W whose mean contribution W_cd E[x_d] is largest.

    Args:
        percentile: of the contributions below which a weight is dropped; 90 in the paper.
    """

    def __init__(self, *, percentile: Percentile) -> None:
        self.percentile = percentile

    def fit(self, train: FeatureSet, head: LinearHead | None = None, val: FeatureSet | None = None) -> Self:
        super().fit(train, head)
        weight = self.head.weight
        contribution = weight * train.features.mean(0)
        threshold = float(np.percentile(contribution.numpy(), self.percentile))
        self.sparse = torch.where(contribution > threshold, weight, torch.zeros_like(weight))
        return self

    def score(self, data: FeatureSet) -> Tensor:
        _ = self.head  # not fitted is said before the weights are missed
        return self.energy(data.features, self.sparse)
