"""Mahalanobis distance relative to that of all classes together (Ren et al. 2021)."""

from __future__ import annotations

from typing import Literal, Self

import torch
from torch import Tensor

from ood_lab.gaussian import class_means, whitener
from ood_lab.scorer.base import NotFittedError, Scorer
from ood_lab.types import FeatureSet, LinearHead


class RMDS(Scorer):
    """score = min_c MD_c(x) - MD_0(x): squared distances to class means under one tied covariance, and to the mean of
    all training rows under their covariance.

    In float64, with pseudo-inverses. OpenOOD's `rmds` is its negative; pytorch-ood divides it by the
    number of training rows.

    Args:
        space: which features; the penultimate ones in the paper.
    """

    def __init__(self, *, space: Literal["method", "penultimate", "projection"]) -> None:
        self.space = space
        self._whiten: Tensor | None = None

    def fit(self, train: FeatureSet, head: LinearHead | None = None, val: FeatureSet | None = None) -> Self:
        if train.labels is None:
            raise ValueError("RMDS needs the training labels; the feature set has none")
        x = train.features.double()
        means, rank = class_means(x, train.labels)
        self._whiten = whitener(x - means[rank])
        self._means = means @ self._whiten
        self._mean = x.mean(0)
        self._whiten_all = whitener(x - self._mean)
        return self

    def score(self, data: FeatureSet) -> Tensor:
        if self._whiten is None:
            raise NotFittedError(self)
        x = data.features.double()
        nearest = torch.cdist(x @ self._whiten, self._means).amin(1).square()
        return nearest - ((x - self._mean) @ self._whiten_all).square().sum(1)
