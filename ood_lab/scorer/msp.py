"""Maximum softmax probability (Hendrycks & Gimpel 2017)."""

from __future__ import annotations

from torch import Tensor

from ood_lab.scorer.base import Scorer
from ood_lab.types import FeatureSet


class MSP(Scorer):
    """score = 1 - max_c softmax(logits)_c, taken as the sum of the other classes' probabilities in float64.

    1 - p would collapse to ties where p rounds to 1; the order is the same. OpenOOD and pytorch-ood give -p in float32.
    """

    def score(self, data: FeatureSet) -> Tensor:
        p = data.logits.double().softmax(1)
        return p.scatter(1, p.argmax(1, keepdim=True), 0).sum(1)
