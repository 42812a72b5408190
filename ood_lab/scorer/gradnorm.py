"""Norm of the gradient of a uniform-target loss at the head (Huang et al. 2021), in closed form."""

from __future__ import annotations

from torch import Tensor

from ood_lab.scorer.base import Scorer
from ood_lab.types import FeatureSet


class GradNorm(Scorer):
    """score = -|dKL(u || softmax) / dW|_1 = -|x|_1 sum_c |p_c - 1/C|, x the penultimate features.

    The gradient at the head's weights is the outer product of (p - u) and x, so no backward pass is needed. OpenOOD's
    loop takes targets of 1 instead of 1/C: C times the score, the same order.
    """

    def _score(self, data: FeatureSet) -> Tensor:
        p = data.logits.double().softmax(1)
        return -data.features.double().abs().sum(1) * (p - 1 / p.shape[1]).abs().sum(1)
