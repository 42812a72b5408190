"""Distance to the k-th nearest training feature (Sun et al. 2022; HamOS, Eq. 18)."""

from __future__ import annotations

from typing import Literal, Self

from torch import Tensor
from torch.nn import functional as F

from ood_lab.config.ranges import PositiveInt
from ood_lab.index.flat import FlatIndex
from ood_lab.scorer.base import NotFittedError, Scorer
from ood_lab.types import FeatureSet, LinearHead


class KNN(Scorer):
    """score = |z - z_(k)|, z the L2-normalised features and z_(k) the k-th nearest normalised training feature.

    OpenOOD gives the negative squared distance, HamOS's release too (the same order). A k above the number of
    training rows becomes that number.

    Args:
        k: rank of the neighbour; 50 in HamOS and OpenOOD.
        space: "method" scores in the projection where the method trains one (HamOS's release does), else in the
            penultimate features (OpenOOD's CIDER does).
    """

    def __init__(self, *, k: PositiveInt, space: Literal["method", "penultimate", "projection"]) -> None:
        self.k, self.space = k, space
        self._index: FlatIndex | None = None

    def fit(self, train: FeatureSet, head: LinearHead | None = None, val: FeatureSet | None = None) -> Self:
        self._index = FlatIndex(F.normalize(train.features, dim=1))
        return self

    def score(self, data: FeatureSet) -> Tensor:
        if self._index is None:
            raise NotFittedError(self)
        return self._index.kth_distance(F.normalize(data.features, dim=1), self.k)
