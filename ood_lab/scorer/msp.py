"""Maximum softmax probability (Hendrycks & Gimpel 2017)."""

from __future__ import annotations

from torch import Tensor

from ood_lab.scorer.base import Scorer
from ood_lab.types import FeatureSet


def uncertainty(logits: Tensor) -> Tensor:
    """1 - max_c softmax(logits)_c [N], as the sum of the other classes: 1 - p collapses to ties where p rounds to 1."""
    p = logits.softmax(1)
    return p.scatter(1, p.argmax(1, keepdim=True), 0).sum(1)


class MSP(Scorer):
    """score = 1 - max_c softmax(logits)_c, in float64. OpenOOD and pytorch-ood give -p in float32."""

    def _score(self, data: FeatureSet) -> Tensor:
        return uncertainty(data.logits.double())
