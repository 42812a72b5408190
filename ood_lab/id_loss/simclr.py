"""NT-Xent of SimCLR (Chen et al. 2020): the two views of an image attract each other; labels are not read."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from ood_lab.id_loss.base import Contrastive
from ood_lab.loss.supcon import supcon
from ood_lab.parts import View


class SimCLR(Contrastive):
    """Each row against all other rows of the batch; the other view of its image is the positive."""

    reads: ClassVar = ("z",)
    reads_whole: ClassVar = ("z",)

    def loss(self, view: View) -> Tensor:
        whole = view.whole_batch
        return supcon(view.id.z, whole.rows.z, whole.own, whole.images, self.temperature)
