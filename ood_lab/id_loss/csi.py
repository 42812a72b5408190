"""CSI's contrast on shifted images, with labels (Tack et al. 2020): a class under each shift is a class of its own."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from ood_lab.id_loss.base import Contrastive
from ood_lab.loss.supcon import supcon
from ood_lab.parts import View


class CSI(Contrastive):
    """SupCon over two views of each image under each of four turns, with C x 4 classes (CSI, section 2.2).

    CSI's code counts each row among its own positives with a constant, which lowers a row's weight by n / (n + 1) for n
    positives; here, as in SupCon, it does not. Images are turned after their augmentation, in CSI before its colours.

    Args:
        temperature: tau; 0.07 in CSI's labelled code, 0.5 in its text.
    """

    reads_shifted: ClassVar = ("z",)

    def loss(self, view: View) -> Tensor:
        turned = view.shifted_batch
        z = turned.rows.z
        return supcon(z[turned.own], z, turned.own, turned.labels, self.temperature)
