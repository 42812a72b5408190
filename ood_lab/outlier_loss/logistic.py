"""A linear head that tells ID rows from outliers on the sphere (the idea of VOS and NPOS)."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from ood_lab.loss.ood_discernment import logistic
from ood_lab.parts import Dimensions, Term, View


class Logistic(Term):
    """Binary cross-entropy of a linear head on z sqrt(D): ID rows are 1, outliers 0, both sides weighing the same.

    On unit-norm input without the factor it does not learn. Synthesized points train the head, which trains the ID
    rows; images of an auxiliary set train the network by themselves, too.
    """

    reads: ClassVar = ("z",)
    reads_outliers: ClassVar = ("z",)

    def __init__(self, dims: Dimensions, **schedule: Any) -> None:
        super().__init__(dims, **schedule)
        self.head = nn.Linear(dims.projection, 1)

    def loss(self, view: View) -> Tensor:
        z, outliers = view.id.z, view.outlier_rows.z
        scale = z.shape[1] ** 0.5
        id_logits = self.head(z * scale).squeeze(1)
        return logistic(id_logits, self.head(outliers * scale).squeeze(1))
