"""Outliers as far from one class as from another: the working reading of HamOS's OOD-discernment loss."""

from __future__ import annotations

from torch import Tensor

from ood_lab.loss.ood_discernment import equidistant
from ood_lab.outlier_loss.base import Discernment
from ood_lab.parts import View


class Equidistant(Discernment):
    """Equal cosines to all live prototypes.

    Points of a synthesizer carry no graph and train the network through the batch's share of the prototypes; images of
    an auxiliary set train it by themselves, too.
    """

    def loss(self, view: View) -> Tensor:
        return equidistant(view.outlier_rows.z, view.kept["prototypes"], self.temperature)
