"""Divergence from the typical softmax of each class (Hendrycks et al. 2022)."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from ood_lab.scorer.base import NotFittedError, Scorer
from ood_lab.types import FeatureSet, LinearHead


class KLMatching(Scorer):
    """score = min_c KL(p || d_c), d_c the mean softmax of validation images that are predicted as c, in float64.

    Fitted on the validation part where there is one (as the paper), else on the training features. A class that is
    never predicted has no template. KL(p || d) = sum p log p - p . log d: one matrix product.
    """

    _log_templates: Tensor | None = None

    def fit(self, train: FeatureSet, head: LinearHead | None = None, val: FeatureSet | None = None) -> Self:
        p = (train if val is None else val).logits.double().softmax(1)
        predicted, rank, counts = p.argmax(1).unique(return_inverse=True, return_counts=True)
        templates = p.new_zeros(len(predicted), p.shape[1]).index_add_(0, rank, p) / counts[:, None]
        self._log_templates = templates.clamp(min=torch.finfo(p.dtype).tiny).log()
        return self

    def score(self, data: FeatureSet) -> Tensor:
        if self._log_templates is None:
            raise NotFittedError(self)
        log_p = data.logits.double().log_softmax(1)
        p = log_p.exp()
        return (p * log_p).sum(1) - (p @ self._log_templates.T).amax(1)
