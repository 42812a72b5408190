"""Energy of features whose small activations are removed (Djurisic et al. 2023)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ood_lab.config.ranges import Percentile
from ood_lab.scorer.base import HeadScorer
from ood_lab.types import FeatureSet


def largest(features: Tensor, percentile: float) -> Tensor:
    """Places [N, K] of the largest K = D - round(D percentile / 100) features of each row; of equal ones, the first."""
    count = features.shape[1] - round(features.shape[1] * percentile / 100)
    return features.sort(dim=1, descending=True, stable=True).indices[:, :count]


class ASH(HeadScorer):
    """score = energy of the head on shaped penultimate features.

    "p" keeps the largest activations; "s" multiplies them by exp(sum before / sum after); "b" sets each of them to
    (sum before) / (their number). HamOS's text says ASH-S at 65, its code runs OpenOOD's `ash`, which is "b".
    Where fewer activations are positive than are kept, "b" gives some zeros a value: of equal ones the first, where
    the authors' partial sort takes any.

    Args:
        variant: "s", "p" or "b".
        percentile: of the activations that are removed; 65 in HamOS.
    """

    def __init__(self, *, variant: Literal["s", "p", "b"], percentile: Percentile) -> None:
        self.variant, self.percentile = variant, percentile

    def shape(self, features: Tensor) -> Tensor:
        """The shaped features [N, D]."""
        places = largest(features, self.percentile)
        before = features.sum(1, keepdim=True)
        values = features.gather(1, places)
        if self.variant == "s":
            values = values * (before / values.sum(1, keepdim=True)).exp()
        elif self.variant == "b":
            values = (before / places.shape[1]).expand_as(values)
        return torch.zeros_like(features).scatter(1, places, values)

    def _score(self, data: FeatureSet) -> Tensor:
        return self.energy(self.shape(data.features))
