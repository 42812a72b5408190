"""Outlier Exposure: uniform predictions on outliers (Hendrycks et al. 2019)."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from ood_lab.loss.outlier_exposure import outlier_exposure
from ood_lab.parts import Term, View


class OutlierExposure(Term):
    """Cross-entropy of the outliers' predictions among the classes to the uniform distribution, up to log C."""

    reads_outliers: ClassVar = ("logits",)

    def loss(self, view: View) -> Tensor:
        return outlier_exposure(view.outlier_rows.class_logits)
