"""Inner product with the stored mean of the predicted class (Zhang et al. 2023)."""

from __future__ import annotations

from typing import Self

from torch import Tensor

from ood_lab.scorer.base import NotFittedError, Scorer
from ood_lab.types import FeatureSet, LinearHead


class SHE(Scorer):
    """score = -x . s_c, c the predicted class and s_c the mean penultimate feature of its rightly classified images.

    Fitted on the training features with their labels. A class without any right prediction has the pattern 0.
    """

    _patterns: Tensor | None = None

    def fit(self, train: FeatureSet, head: LinearHead | None = None, val: FeatureSet | None = None) -> Self:
        if train.labels is None:
            raise ValueError("SHE needs the training labels; the feature set has none")
        right = train.logits.argmax(1) == train.labels
        labels, x = train.labels[right], train.features[right].double()
        classes = train.logits.shape[1]
        sums = x.new_zeros(classes, x.shape[1]).index_add_(0, labels, x)
        self._patterns = sums / labels.bincount(minlength=classes).clamp(min=1)[:, None]
        return self

    def score(self, data: FeatureSet) -> Tensor:
        if self._patterns is None:
            raise NotFittedError(self)
        return -(data.features.double() * self._patterns[data.logits.argmax(1)]).sum(1)
