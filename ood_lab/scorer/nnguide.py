"""Energy guided by the nearest training features (Park et al. 2023)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ood_lab.config.ranges import Fraction, PositiveInt
from ood_lab.random import generator
from ood_lab.scorer.base import Scorer
from ood_lab.types import FeatureSet

BLOCK = 2**24  # similarities held at once


class NNGuide(Scorer):
    """score = -S(x) mean of the k largest S(x_i) cos(x, x_i), S = logsumexp of the logits, x_i of a bank.

    The bank is a seeded random share of the training rows. OpenOOD takes the first rows of a list that is sorted by
    class: on CIFAR-10 a bank of one class (`bank`).

    Args:
        k: 10 in the paper.
        alpha: share of the training rows in the bank; 0.01 in the paper on ImageNet.
        bank: "random", or "first" for OpenOOD's.
    """

    def __init__(self, *, k: PositiveInt, alpha: Fraction, bank: Literal["random", "first"]) -> None:
        self.k, self.alpha, self.bank = k, alpha, bank

    def _fit(self, train: FeatureSet, val: FeatureSet | None) -> None:
        count = max(1, int(len(train.features) * self.alpha))
        order = torch.randperm(len(train.features), generator=generator("nnguide"))
        rows = order[:count] if self.bank == "random" else torch.arange(count)
        energy = train.logits[rows].logsumexp(1, keepdim=True)
        self._bank = F.normalize(train.features[rows], dim=1) * energy

    def _score(self, data: FeatureSet) -> Tensor:
        k = min(self.k, len(self._bank))
        blocks = F.normalize(data.features, dim=1).split(max(1, BLOCK // len(self._bank)))
        guidance = torch.cat([(block @ self._bank.T).topk(k).values.mean(1) for block in blocks])
        return -data.logits.logsumexp(1) * guidance
