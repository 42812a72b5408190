"""Cross-entropy of made images with the soft labels that they were made with (OpenMix, MixOE)."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from ood_lab.parts import Term, View


class SoftLabel(Term):
    """mean_b -sum_c t_bc log softmax(logits_b)_c, t the targets of a perturbation such as `mix`.

    Source: OpenMix (Zhu et al. 2023), MixOE (Zhang et al. 2023), both from their code.
    """

    reads_outliers: ClassVar = ("logits", "targets")

    def loss(self, view: View) -> Tensor:
        return F.cross_entropy(view.outlier_rows.logits, view.outlier_rows.targets)
