"""Distance to the decision boundaries over the distance to the training mean (Liu & Qin 2024)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ood_lab.scorer.base import HeadScorer
from ood_lab.types import FeatureSet


class FDBD(HeadScorer):
    """score = -mean_{c != y} (|f_y - f_c| / |w_y - w_c|) / |x - mu|, y the predicted class and mu the training mean.

    Args:
        normaliser: "distance" for |x - mu|, as in the paper, or "norm" for |x|; OpenOOD's search tries both.
    """

    def __init__(self, *, normaliser: Literal["distance", "norm"]) -> None:
        self.normaliser = normaliser

    def _fit(self, train: FeatureSet, val: FeatureSet | None) -> None:
        weight = self.head.weight.double()
        if len(weight) < 2:
            raise ValueError("FDBD measures distances between classes; the network has only one")
        self.mean = train.features.double().mean(0)
        self.between = torch.cdist(weight, weight)

    def _score(self, data: FeatureSet) -> Tensor:
        logits = data.logits.double()
        top, predicted = logits.max(1)
        between = self.between[predicted].scatter(1, predicted[:, None], 1.0)  # the class itself adds 0 / 1
        distance = ((top[:, None] - logits) / between).sum(1) / (logits.shape[1] - 1)
        x = data.features.double()
        away = x - self.mean if self.normaliser == "distance" else x
        return -distance / away.norm(dim=1)
