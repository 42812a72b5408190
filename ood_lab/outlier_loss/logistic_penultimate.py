"""A small network that tells ID rows from outliers on penultimate features (NPOS, Tao et al. 2023)."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from ood_lab.outlier_loss.base import LogisticTerm
from ood_lab.parts import Dimensions, Rows


class LogisticPenultimate(LogisticTerm):
    """On penultimate features as they are, not normalised."""

    reads: ClassVar = ("features",)
    reads_outliers: ClassVar = ("features",)

    def width(self, dims: Dimensions) -> int:
        return dims.features

    def inputs(self, rows: Rows) -> Tensor:
        return rows.features
