"""Likeness to the training images times the norm, in the space of CSI (Tack et al. 2020; HamOS, Eq. 20)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ood_lab.index.flat import FlatIndex
from ood_lab.scorer.base import Scorer
from ood_lab.types import FeatureSet


class CSI(Scorer):
    """score = -sum_s lambda_s max_m cos(z_s(x), z_s(x_m)) |z_s(x)|, x_m the training images.

    z_s is the projection, not normalised, of the image under shift s (the identity first); lambda_s = 1 / mean of
    |z_s(x_m)| weighs the shifts as CSI's Eq. 7. The part of CSI's score that reads its shift classifier is left out, as
    in HamOS.

    Args:
        shifts: "all", or the "first" alone, the image as it is (HamOS, Eq. 20).
    """

    by_name_only = True
    space = "shifts"

    def __init__(self, *, shifts: Literal["all", "first"] = "all") -> None:
        self.shifts = shifts

    def _fit(self, train: FeatureSet, val: FeatureSet | None) -> None:
        if train.features.dim() != 3:
            raise ValueError(f"CSI needs features of [N, shifts, D]; got {tuple(train.features.shape)}")
        projections = self._chosen(train)
        self._indices = [FlatIndex(F.normalize(z, dim=1)) for z in projections.unbind(1)]
        self._norms = projections.norm(dim=2).mean(0)

    def _chosen(self, data: FeatureSet) -> Tensor:
        return data.features if self.shifts == "all" else data.features[:, :1]

    def _score(self, data: FeatureSet) -> Tensor:
        total = torch.zeros(len(data.features), dtype=torch.float64)
        for z, index, norm in zip(self._chosen(data).unbind(1), self._indices, self._norms, strict=True):
            # Of unit vectors, cos = 1 - d^2 / 2.
            cosine = 1 - index.kth_distance(F.normalize(z, dim=1), 1).double().square() / 2
            total -= cosine * z.norm(dim=1).double() / norm.double()
        return total
