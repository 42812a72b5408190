"""Energy of features scaled by how much of their sum the largest ones hold (Xu et al. 2024)."""

from __future__ import annotations

from torch import Tensor

from ood_lab.config.ranges import Percentile
from ood_lab.scorer.base import HeadScorer
from ood_lab.types import FeatureSet


class Scale(HeadScorer):
    """score = energy of W (x exp(r)) + b, r = (sum of all activations) / (sum of the largest).

    ASH-S without removing anything.

    Args:
        percentile: of the activations that don't count as largest; 85 in the paper.
    """

    def __init__(self, *, percentile: Percentile) -> None:
        self.percentile = percentile

    def _score(self, data: FeatureSet) -> Tensor:
        x = data.features
        count = x.shape[1] - round(x.shape[1] * self.percentile / 100)
        ratio = x.sum(1, keepdim=True) / x.topk(count).values.sum(1, keepdim=True)
        return self.energy(x * ratio.exp())
