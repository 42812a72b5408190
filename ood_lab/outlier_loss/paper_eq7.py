"""HamOS, Eq. 7 as printed: its minimum puts an outlier onto a prototype."""

from __future__ import annotations

from torch import Tensor

from ood_lab.loss.ood_discernment import paper_eq7
from ood_lab.outlier_loss.base import Discernment
from ood_lab.parts import View


class PaperEq7(Discernment):
    """Mean log-probability of the classes, minimised, with live prototypes."""

    def loss(self, view: View) -> Tensor:
        return paper_eq7(view.outlier_rows.z, view.kept["prototypes"], self.temperature)
