"""A head that tells ID rows from outliers on the sphere (the idea of VOS and NPOS)."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from ood_lab.outlier_loss.base import LogisticTerm
from ood_lab.parts import Dimensions, Rows


class Logistic(LogisticTerm):
    """On z sqrt(D): on unit vectors without the factor the head does not learn."""

    reads: ClassVar = ("z",)
    reads_outliers: ClassVar = ("z",)

    def width(self, dims: Dimensions) -> int:
        return dims.projection

    def inputs(self, rows: Rows) -> Tensor:
        return rows.z * rows.z.shape[1] ** 0.5
