"""Distance to the decision boundaries over the distance to the training mean (Liu & Qin 2024)."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from ood_lab.scorer.base import HeadScorer
from ood_lab.types import FeatureSet, LinearHead


class FDBD(HeadScorer):
    """score = -mean_{c != y} (|f_y - f_c| / |w_y - w_c|) / |x - mu|, y the predicted class and mu the training mean."""

    def fit(self, train: FeatureSet, head: LinearHead | None = None, val: FeatureSet | None = None) -> Self:
        super().fit(train, head)
        weight = self.head.weight.double()
        self.mean = train.features.double().mean(0)
        self.between = torch.cdist(weight, weight)
        return self

    def score(self, data: FeatureSet) -> Tensor:
        _ = self.head  # not fitted is said before the distances are missed
        logits = data.logits.double()
        top, predicted = logits.max(1)
        between = self.between[predicted].scatter(1, predicted[:, None], 1.0)  # the class itself adds 0 / 1
        distance = ((top[:, None] - logits) / between).sum(1) / (logits.shape[1] - 1)
        return -distance / (data.features.double() - self.mean).norm(dim=1)
