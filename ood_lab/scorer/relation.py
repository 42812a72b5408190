"""Strength of the ties to the training images in a relation graph (Kim et al. 2023)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ood_lab.config.ranges import Fraction, PositiveFloat
from ood_lab.index.flat import BLOCK
from ood_lab.scorer.base import Scorer
from ood_lab.types import FeatureSet


class Relation(Scorer):
    """score = -sum_i k(x, x_i)^power over the training images with k > threshold.

    k(x, y) = max(0, cos(x, y)) p(x) . p(y), of penultimate features and softmax. OpenOOD's `relation` is its negative,
    and writes normalised features into those it is given.

    Args:
        power: 1 in HamOS; OpenOOD searches 1, 2, 4, 6 and 8.
        threshold: of edges that are dropped; 0.03 in the authors' code.
    """

    def __init__(self, *, power: PositiveFloat, threshold: Fraction) -> None:
        self.power, self.threshold = power, threshold

    def _fit(self, train: FeatureSet, val: FeatureSet | None) -> None:
        self._bank = F.normalize(train.features, dim=1)
        self._p = train.logits.softmax(1)

    def _score(self, data: FeatureSet) -> Tensor:
        rows = max(1, BLOCK // len(self._bank))
        x, p = F.normalize(data.features, dim=1).split(rows), data.logits.softmax(1).split(rows)
        sums = []
        for x_block, p_block in zip(x, p, strict=True):
            k = (x_block @ self._bank.T).mul_(p_block @ self._p.T)
            F.threshold(k, self.threshold, 0.0, inplace=True)
            sums.append(k.sum(1) if self.power == 1 else k.pow_(self.power).sum(1))
        return -torch.cat(sums) if sums else data.features.new_empty(0)
