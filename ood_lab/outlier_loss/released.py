"""What the released HamOS code trains: the equidistant form on ID rows; outliers are made and never used."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from ood_lab.loss.ood_discernment import equidistant
from ood_lab.outlier_loss.base import Discernment
from ood_lab.parts import View


class Released(Discernment):
    """Equal cosines of the ID rows to detached prototypes, once outliers could be made."""

    reads: ClassVar = ("z", "prototypes")
    reads_outliers: ClassVar = ()
    waits_for_outliers: ClassVar = True

    def loss(self, view: View) -> Tensor:
        return equidistant(view.id.z, view.kept["prototypes"].detach(), self.temperature)
