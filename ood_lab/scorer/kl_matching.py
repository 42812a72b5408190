"""Divergence from the typical softmax of each class (Hendrycks et al. 2022)."""

from __future__ import annotations

import torch
from torch import Tensor

from ood_lab.scorer.base import Scorer
from ood_lab.types import FeatureSet


class KLMatching(Scorer):
    """score = min_c KL(p || d_c), d_c the mean softmax of validation images that are predicted as c, in float64.

    Fitted on the validation part where there is one (as the paper), else on the training features. A class that is
    never predicted has no template. KL(p || d) = sum p log p - p . log d: one matrix product.
    """

    def _fit(self, train: FeatureSet, val: FeatureSet | None) -> None:
        p = (train if val is None else val).logits.double().softmax(1)
        predicted, rank, counts = p.argmax(1).unique(return_inverse=True, return_counts=True)
        templates = p.new_zeros(len(predicted), p.shape[1]).index_add_(0, rank, p) / counts[:, None]
        self._log_templates = templates.clamp(min=torch.finfo(p.dtype).tiny).log()

    def _score(self, data: FeatureSet) -> Tensor:
        log_p = data.logits.double().log_softmax(1)
        p = log_p.exp()
        return (p * log_p).sum(1) - (p @ self._log_templates.T).amax(1)
