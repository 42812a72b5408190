"""Distance to the k-th nearest training feature (Sun et al. 2022; HamOS, Eq. 18)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from ood_lab.config.ranges import PositiveInt
from ood_lab.index import build_index
from ood_lab.scorer.base import Scorer
from ood_lab.types import FeatureSet


class KNN(Scorer):
    """score = |z - z_(k)|, z the L2-normalised features and z_(k) the k-th nearest normalised training feature.

    OpenOOD gives the negative squared distance, HamOS's release too (the same order). A k above the number of
    training rows becomes that number.

    Args:
        k: rank of the neighbour; 50 in HamOS and OpenOOD.
        space: "method" scores in the projection where the method trains one (HamOS's release does), else in the
            penultimate features (OpenOOD's CIDER does).
        index: "torch" or "faiss"; both are exact.
    """

    features_alone = True

    def __init__(
        self,
        *,
        k: PositiveInt,
        space: Literal["method", "penultimate", "projection"],
        index: Literal["torch", "faiss"],
    ) -> None:
        self.k, self.space, self.index = k, space, index

    def _fit(self, train: FeatureSet, val: FeatureSet | None) -> None:
        self._bank = build_index(F.normalize(train.features, dim=1), self.index)

    def _score(self, data: FeatureSet) -> Tensor:
        return self._bank.kth_distance(F.normalize(data.features, dim=1), self.k)
