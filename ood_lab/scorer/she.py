"""Inner product with the stored mean of the predicted class (Zhang et al. 2023)."""

from __future__ import annotations

from torch import Tensor

from ood_lab.scorer.base import Scorer
from ood_lab.types import FeatureSet


class SHE(Scorer):
    """score = -x . s_c, c the predicted class and s_c the mean penultimate feature of its rightly classified images.

    Fitted on the training features with their labels. A class without any right prediction has the pattern 0.
    """

    requires = ("labels",)

    def _fit(self, train: FeatureSet, val: FeatureSet | None) -> None:
        assert train.labels is not None
        right = train.logits.argmax(1) == train.labels
        labels, x = train.labels[right], train.features[right].double()
        classes = train.logits.shape[1]
        sums = x.new_zeros(classes, x.shape[1]).index_add_(0, labels, x)
        self._patterns = sums / labels.bincount(minlength=classes).clamp(min=1)[:, None]

    def _score(self, data: FeatureSet) -> Tensor:
        return -(data.features.double() * self._patterns[data.logits.argmax(1)]).sum(1)
