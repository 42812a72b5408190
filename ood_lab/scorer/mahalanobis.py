"""Mahalanobis distance to the nearest class mean under one tied covariance (Lee et al. 2018; HamOS, Eq. 21)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from ood_lab.geometry.gaussian import TiedGaussians
from ood_lab.scorer.base import Scorer
from ood_lab.types import FeatureSet


class Mahalanobis(Scorer):
    """score = min_c (x - mu_c)' S^+ (x - mu_c), S the covariance of class-centred training features (divided by N).

    In float64, with the pseudo-inverse: dead units, and fewer training rows than features, do no harm. OpenOOD's `mds`
    is its negative; pytorch-ood has half of it over the number of training rows.

    Args:
        space: which features; the penultimate ones in the paper.
    """

    requires = ("labels",)
    features_alone = True

    def __init__(self, *, space: Literal["method", "penultimate", "projection"]) -> None:
        self.space = space

    def _fit(self, train: FeatureSet, val: FeatureSet | None) -> None:
        assert train.labels is not None
        self._classes = TiedGaussians(train.features.double(), train.labels)

    def _score(self, data: FeatureSet) -> Tensor:
        return self._classes.nearest(data.features.double())
