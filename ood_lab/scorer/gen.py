"""Generalised entropy (Liu et al. 2023)."""

from __future__ import annotations

from torch import Tensor

from ood_lab.config.ranges import PositiveFloat, PositiveInt
from ood_lab.scorer.base import Scorer
from ood_lab.types import FeatureSet


class GEN(Scorer):
    """score = sum over the top M classes of p^gamma (1 - p)^gamma, in float64.

    With all classes where there are fewer than M. OpenOOD's `gen` is its negative, with gamma and M tuned on OOD data;
    pytorch-ood has the mean instead of the sum.

    Args:
        gamma: 0.1 in the paper.
        top_m: M; 100 in the paper on 1,000 classes.
    """

    def __init__(self, *, gamma: PositiveFloat, top_m: PositiveInt) -> None:
        self.gamma, self.top_m = gamma, top_m

    def _score(self, data: FeatureSet) -> Tensor:
        p = data.logits.double().softmax(1)
        top = p.topk(min(self.top_m, p.shape[1])).values
        return (top * (1 - top)).clamp(min=0).pow(self.gamma).sum(1)
