"""Outliers as a class of their own, for a head with one output more."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from ood_lab.loss.absent_class import absent_class
from ood_lab.parts import Term, View


class AbsentClass(Term):
    """Cross-entropy of the outliers with label K + 1 (DOS, NTOM)."""

    reads_outliers: ClassVar = ("logits", "absent")

    def loss(self, view: View) -> Tensor:
        return absent_class(view.outlier_rows.logits, view.outlier_rows.absent)
