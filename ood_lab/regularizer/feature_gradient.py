"""GReg's regularisation among features: a flat score around points of the penultimate space."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from ood_lab.loss.energy import energy
from ood_lab.loss.gradient_penalty import gradient_penalty
from ood_lab.parts import Dimensions, Rows, Term, View


class FeatureGradient(Term):
    """GReg's Eq. 3 with the gradient with respect to penultimate features, so that it works on synthesized points.

    Of a linear head grad S = -sum_c p_c w_c: the penalty makes the classes' weights short, and their mean under the
    prediction shorter. Points of a synthesizer train the head alone, ID rows the network, too. Not in the paper.

    Args:
        m_in, m_out: ID rows count below the first, outliers above the second; null: all count.
    """

    reads: ClassVar = ("features", "logits")
    reads_outliers: ClassVar = ("features", "logits")
    at_most: ClassVar = (("m_in", "m_out"),)

    def __init__(
        self, dims: Dimensions, *, m_in: float | None = None, m_out: float | None = None, **schedule: Any
    ) -> None:
        super().__init__(dims, **schedule)
        self.m_in = float("inf") if m_in is None else m_in
        self.m_out = float("-inf") if m_out is None else m_out

    def loss(self, view: View) -> Tensor:
        of_id, of_outliers = self._scored(view, view.id), self._scored(view, view.outlier_rows)
        return gradient_penalty(*of_id, *of_outliers, m_in=self.m_in, m_out=self.m_out)

    @staticmethod
    def _scored(view: View, rows: Rows) -> tuple[Tensor, Tensor]:
        """Energies, and the features that they depend on.

        A second way through the head: the step's own outputs may have another precision than the features.
        """
        features = rows.features if rows.features.requires_grad else rows.features.detach().requires_grad_()
        return energy(view.further_passes.classify(features)[:, : rows.classes]), features
