"""Mahalanobis distance relative to that of all classes together (Ren et al. 2021)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from ood_lab.geometry.gaussian import TiedGaussians, whitener
from ood_lab.scorer.base import Scorer
from ood_lab.types import FeatureSet


class RMDS(Scorer):
    """score = min_c MD_c(x) - MD_0(x): squared distances to class means under one tied covariance, and to the mean of
    all training rows under their covariance.

    In float64, with pseudo-inverses; with one class it is 0. OpenOOD's `rmds` is its negative; pytorch-ood divides it
    by the number of training rows.

    Args:
        space: which features; the penultimate ones in the paper.
    """

    requires = ("labels",)
    features_alone = True

    def __init__(self, *, space: Literal["method", "penultimate", "projection"]) -> None:
        self.space = space

    def _fit(self, train: FeatureSet, val: FeatureSet | None) -> None:
        assert train.labels is not None
        x = train.features.double()
        self._classes = TiedGaussians(x, train.labels)
        self._mean = x.mean(0)
        self._whiten_all = whitener(x - self._mean)

    def _score(self, data: FeatureSet) -> Tensor:
        x = data.features.double()
        return self._classes.nearest(x) - ((x - self._mean) @ self._whiten_all).square().sum(1)
