"""Mahalanobis distance to the nearest class mean under one tied covariance (Lee et al. 2018; HamOS, Eq. 21)."""

from __future__ import annotations

from typing import Literal, Self

import torch
from torch import Tensor

from ood_lab.gaussian import class_means, whitener
from ood_lab.scorer.base import NotFittedError, Scorer
from ood_lab.types import FeatureSet, LinearHead


class Mahalanobis(Scorer):
    """score = min_c (x - mu_c)' S^+ (x - mu_c), S the covariance of class-centred training features (divided by N).

    In float64, with the pseudo-inverse, so that dead units do no harm. OpenOOD's `mds` is its negative;
    pytorch-ood has half of it over the number of training rows.

    Args:
        space: which features; the penultimate ones in the paper.
    """

    def __init__(self, *, space: Literal["method", "penultimate", "projection"]) -> None:
        self.space = space
        self._whiten: Tensor | None = None

    def fit(self, train: FeatureSet, head: LinearHead | None = None, val: FeatureSet | None = None) -> Self:
        if train.labels is None:
            raise ValueError("Mahalanobis needs the training labels; the feature set has none")
        x = train.features.double()
        means, rank = class_means(x, train.labels)
        self._whiten = whitener(x - means[rank])
        self._means = means @ self._whiten
        return self

    def score(self, data: FeatureSet) -> Tensor:
        if self._whiten is None:
            raise NotFittedError(self)
        return torch.cdist(data.features.double() @ self._whiten, self._means).amin(1).square()
